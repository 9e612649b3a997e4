"""Settings of workload identity."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class IdentitySettings(BaseModel):
    """Who is known besides enrolled keys."""

    trust_file: Path | None = Field(
        None,
        description="TOML with the issuers of identity tokens and the rules that name their workloads; without it only "
        "enrolled keys are known. Read at start. Trusted: who can write it says who is which workload.",
    )
