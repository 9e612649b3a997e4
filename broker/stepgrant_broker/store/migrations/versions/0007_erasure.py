"""Runs whose payloads were erased, what finds the ended ones whose time of keeping is over, and keys that can go.

SQLite moves the rows of a table without rowids between pages, and leaves copies behind; the keys of chains get a table
in which rows are only ever appended, so that what is written over is gone (`tables.ledger.ChainKeyRow`).
"""

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
    sqlite = op.get_bind().dialect.name == "sqlite"
    recreate: Literal["always", "never"] = "always" if sqlite else "never"
    with op.batch_alter_table("runs", recreate=recreate) as runs:
        runs.add_column(sa.Column("erased_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_runs_kept",
        "runs",
        ["state", "ended_at"],
        sqlite_where=sa.text(KEPT),
        postgresql_where=sa.text(KEPT),
    )
    if sqlite:
        _append_keys()


def _append_keys() -> None:
    op.rename_table("chain_keys", "chain_keys_before")
    op.create_table(
        "chain_keys",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", name="pk_chain_keys"),
    )
    op.execute(
        "INSERT INTO chain_keys (tenant, run, key_id, nonce, ciphertext) "
        "SELECT tenant, run, key_id, nonce, ciphertext FROM chain_keys_before ORDER BY run, tenant"
    )
    op.drop_table("chain_keys_before")
