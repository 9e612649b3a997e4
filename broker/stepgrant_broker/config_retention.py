"""Settings of how long the values of ended runs are kept (`usecases/erase.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, Field

DAY_MS: Final = 86_400_000
DAYS_MAX: Final = 36_500


class RetentionSettings(BaseModel):
    """What an operator can set of retention: days after a run's end, by its outcome; 0 keeps for ever."""

    retention_completed_days: int = Field(
        0, ge=0, le=DAYS_MAX, description="After so many days the values of completed runs are erased; 0: never."
    )
    retention_failed_days: int = Field(0, ge=0, le=DAYS_MAX, description="The same for failed runs.")
    retention_cancelled_days: int = Field(
        0,
        ge=0,
        le=DAYS_MAX,
        description="The same for cancelled runs. Who can lower these destroys evidence of what was done; the entries "
        "stay, and say that it was retention.",
    )

    @property
    def kept_ms(self) -> Mapping[str, int]:
        """Outcome to milliseconds after the end; an outcome that is kept for ever is left out."""
        days = {
            "completed": self.retention_completed_days,
            "failed": self.retention_failed_days,
            "cancelled": self.retention_cancelled_days,
        }
        return {outcome: number * DAY_MS for outcome, number in days.items() if number}
