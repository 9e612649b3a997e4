"""The registry of signing keys, and what finds the entries about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ABOUT_KEYS = "type IN ('key_rotated', 'key_revoked')"


def upgrade() -> None:
    """Build the table. The broker that starts next fills in the keys that it has."""
    big, text = sa.BigInteger(), sa.String()
    op.create_table(
        "signing_keys",
        sa.Column("purpose", text, nullable=False),
        sa.Column("kid", text, nullable=False),
        sa.Column("number", big, nullable=False),
        sa.Column("jwk", text, nullable=False),
        sa.Column("since", big, nullable=False),
        sa.Column("signs_from", big, nullable=False),
        sa.Column("until", big, nullable=True),
        sa.Column("revoked_at", big, nullable=True),
        sa.Column("revoked_size", big, nullable=True),
        sa.PrimaryKeyConstraint("purpose", "kid", name="pk_signing_keys"),
    )
    op.create_index(
        "ix_entries_keys",
        "entries",
        ["tenant", "chain", "seq"],
        sqlite_where=sa.text(ABOUT_KEYS),
        postgresql_where=sa.text(ABOUT_KEYS),
    )
