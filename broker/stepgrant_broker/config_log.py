"""Settings of the log over all chains (`ledger/sequencer.py`) and of how long values are kept (`usecases/erase.py`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

DAY_MS: Final = 86_400_000
DAYS_MAX: Final = 36_500
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")


class LogSettings(BaseModel):
    """What an operator can set of the log."""

    public_url: str
    log_origin: str | None = Field(
        None,
        description="The log's name for ever, as verifiers know it; by default made of public_url at the first start. "
        "Two logs with one name and one key would look like a fork.",
    )
    log_every_ms: int = Field(
        500, ge=50, le=60_000, description="How often entries are integrated and a tree head is signed."
    )
    log_policy_file: Path | None = Field(
        None,
        description="C2SP tlog-policy: the witnesses to ask, with their URLs, and how many of them a head needs. "
        "Trusted: who writes here decides which heads count.",
    )

    log_newest_dir: Path | None = Field(
        None,
        description="Where the newest head that counts is kept outside the database, in a file `newest-head`; default: "
        "keys_dir. Writable for the broker, and no part of a backup of the database: by it an older one is found at "
        "the start. Who can remove it leaves that to the witnesses.",
    )

    @field_validator("log_origin")
    @classmethod
    def _key_name(cls, value: str | None) -> str | None:
        if value is not None and not _NAME.fullmatch(value):
            raise ValueError("must be like broker.example/log: no space, plus or control character")
        return value

    @property
    def proposed_origin(self) -> str:
        """The name for a log that begins now."""
        parts = urlsplit(self.public_url)
        return self.log_origin or f"{parts.netloc}{parts.path}/log"


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
