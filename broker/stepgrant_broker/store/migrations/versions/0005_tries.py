"""Runs that are resumed by themselves: how often one was tried without a result, and why it was parked."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

OPENINGS = sa.text(
    """
    UPDATE runs SET tries = (
        SELECT count(*) FROM entries AS opening
        WHERE opening.tenant = runs.tenant AND opening.chain = runs.id
        AND opening.type IN ('run_opened', 'run_resumed')
        AND opening.seq > coalesce((
            SELECT max(seq) FROM entries AS result
            WHERE result.tenant = runs.tenant AND result.chain = runs.id
            AND (
                result.type = 'run_released'
                OR (result.type IN ('step_completed', 'step_recorded') AND result.step NOT LIKE '%~reconcile~%')
            )
        ), -1)
    )
    """
)
"""What folding the entries gives; nobody gave a detail to a park before."""


def upgrade() -> None:
    """Add the two columns, and count for the runs that are there."""
    # SQLite writes an added column behind the constraints; PostgreSQL drops no table that others refer to.
    recreate: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("runs", recreate=recreate) as runs:
        runs.add_column(sa.Column("tries", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        runs.add_column(sa.Column("park_detail_c", sa.String(), nullable=True))
    op.execute(OPENINGS)
