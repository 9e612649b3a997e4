"""Open questions are found without looking at all that were ever asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

ASKED = "status = 'pending'"


def upgrade() -> None:
    """Build the index. Only a question that is asked or settled writes to it."""
    op.create_index(
        "ix_approvals_pending",
        "approvals",
        ["tenant", "id"],
        sqlite_where=sa.text(ASKED),
        postgresql_where=sa.text(ASKED),
    )
