"""Settings of the log over all chains (`ledger/sequencer.py`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

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
