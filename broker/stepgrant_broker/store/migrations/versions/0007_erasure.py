"""Runs whose payloads were erased, and what finds the ended ones whose time of keeping is over."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

KEPT = "ended_at IS NOT NULL AND erased_at IS NULL"


def upgrade() -> None:
    """Add the column. Nothing was erased so far."""
    # SQLite writes an added column behind the constraints; PostgreSQL drops no table that others refer to.
    recreate: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("runs", recreate=recreate) as runs:
        runs.add_column(sa.Column("erased_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_runs_kept",
        "runs",
        ["state", "ended_at"],
        sqlite_where=sa.text(KEPT),
        postgresql_where=sa.text(KEPT),
    )
