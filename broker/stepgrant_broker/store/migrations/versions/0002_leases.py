"""Credentials outside: the handle and lease that a grant has there, and when the sweeper must look after it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to grants what an outside issuer needs. Grants that are there have nothing outside."""
    with op.batch_alter_table("grants", recreate="always", table_kwargs={"sqlite_with_rowid": False}) as grants:
        grants.add_column(sa.Column("handle_c", sa.String(), nullable=True))
        grants.add_column(sa.Column("lease_c", sa.String(), nullable=True))
        grants.add_column(sa.Column("due_at", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.create_index(
        "ix_grants_due",
        "grants",
        ["due_at"],
        sqlite_where=sa.text("due_at > 0"),
        postgresql_where=sa.text("due_at > 0"),
    )
