"""The log over all chains: its head, its tiles, its signed heads; and what finds the entries that wait for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

WAITING = "leaf_index IS NULL"
INTEGRATED = "leaf_index IS NOT NULL"


def upgrade() -> None:
    """Build the tables. Entries that are there wait for the sequencer like new ones."""
    big, blob = sa.BigInteger(), sa.LargeBinary()
    op.create_table(
        "log",
        sa.Column("id", big, nullable=False, autoincrement=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("size", big, nullable=False),
        sa.Column("root", blob, nullable=False),
        sa.Column("ts", big, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log"),
    )
    op.create_table(
        "log_tiles",
        sa.Column("level", big, nullable=False, autoincrement=False),
        sa.Column("number", big, nullable=False, autoincrement=False),
        sa.Column("data", blob, nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_log_tiles"),
    )
    op.create_table(
        "log_heads",
        sa.Column("size", big, nullable=False, autoincrement=False),
        sa.Column("root", blob, nullable=False),
        sa.Column("ts", big, nullable=False),
        sa.Column("note", blob, nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_log_heads"),
    )
    for name, columns, condition, unique in (
        ("ix_entries_waiting", ["ts", "tenant", "chain", "seq"], WAITING, False),
        ("ix_entries_leaf", ["leaf_index"], INTEGRATED, True),
    ):
        op.create_index(
            name,
            "entries",
            columns,
            unique=unique,
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )
