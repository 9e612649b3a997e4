"""Calls whose ids were lost: the step that a key is another name of, and the completed step that it may repeat."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

CALLED = "state = 'completed' AND id_source = 'call_id'"


def upgrade() -> None:
    """Add the columns, whose defaults are true of all steps that are there, and the index of completed calls."""
    # SQLite writes the table anew, so that it reads as if it had been made like this; PostgreSQL only adds.
    anew: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("steps", recreate=anew, table_kwargs={"sqlite_with_rowid": False}) as steps:
        steps.add_column(sa.Column("same_as", sa.String(), nullable=True))
        steps.add_column(sa.Column("adopted_epoch", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        steps.add_column(sa.Column("duplicate_of", sa.String(), nullable=True))
        steps.add_column(sa.Column("duplicate", sa.String(), nullable=True))
    op.create_index(
        "ix_steps_called",
        "steps",
        ["tenant", "run", "digest_c", "replayed_epoch", "position"],
        sqlite_where=sa.text(CALLED),
        postgresql_where=sa.text(CALLED),
    )
