"""Fewer indexes: each one costs every commit a page, and these served lists and clean-up alone.

Rows do not change, so the statements of the version before go on working.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

GONE = (
    ("ix_runs_newest", "runs"),
    ("ix_steps_position", "steps"),
    ("ix_grants_newest", "grants"),
    ("ix_grants_open", "grants"),
    ("ix_grants_live", "grants"),
    ("ix_approvals_newest", "approvals"),
    ("ix_answers_expires", "answers"),
    ("ix_proofs_expires", "proofs"),
)
PENDING = "is_open = 1 OR live_until > 0"


def upgrade() -> None:
    """Drop them; one index over grants takes the place of two."""
    for name, table in GONE:
        op.drop_index(name, table_name=table)
    op.create_index(
        "ix_grants_pending",
        "grants",
        ["tenant", "run", "is_open", "live_until"],
        sqlite_where=sa.text(PENDING),
        postgresql_where=sa.text(PENDING),
    )
