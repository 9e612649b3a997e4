"""What the looks for work of workers and sweeper are found by, so that they do not grow with all that is parked."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

HELD = "over = 0"
AWAKE = "state = 'parked' AND rests_seq <> seq"
RESTING = "state = 'parked' AND rests_seq = seq"
STILL_HELD = """
    EXISTS (SELECT 1 FROM runs WHERE runs.tenant = run_epochs.tenant AND runs.id = run_epochs.run
            AND runs.epoch = run_epochs.epoch AND runs.state = 'open')
"""


def upgrade() -> None:
    """Add the columns; a broker of before leaves them at their defaults, which say that nothing is known."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    anew: Literal["always", "never"] = "always" if sqlite else "never"
    with op.batch_alter_table("runs", recreate=anew) as runs:
        runs.add_column(sa.Column("rests_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        runs.add_column(sa.Column("rests_until", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    over = sa.Column("over", sa.SmallInteger(), nullable=False, server_default=sa.text("0"))
    if sqlite:
        with op.batch_alter_table("run_epochs", recreate="always", table_kwargs={"sqlite_with_rowid": False}) as epochs:
            epochs.add_column(over)
        op.execute(f"UPDATE run_epochs SET over = 1 WHERE NOT {STILL_HELD}")  # noqa: S608 - words of ours
    else:
        # PostgreSQL notes a default without touching a row, so only what is held is written, not all that ever was.
        op.add_column("run_epochs", sa.Column("over", sa.SmallInteger(), nullable=False, server_default=sa.text("1")))
        op.alter_column("run_epochs", "over", server_default=sa.text("0"))
        op.execute(f"UPDATE run_epochs SET over = 0 WHERE {STILL_HELD}")  # noqa: S608 - words of ours
    _index("ix_run_epochs_held", "run_epochs", ["tenant", "run"], HELD)
    _index("ix_runs_awake", "runs", ["tenant", "agent", "id"], AWAKE)
    _index("ix_runs_resting", "runs", ["tenant", "agent", "rests_until"], RESTING)


def _index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
