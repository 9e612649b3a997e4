"""Settings of the policy engine: the embedded one, or the operator's own OPA."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
BELONG_TO_OPA: Final = ("opa_url", "opa_token_file", "opa_ca_file", "opa_bundle")


class PolicyEngineSettings(BaseModel):
    """What an operator can set about the engine that decides."""

    policy_engine: Literal["embedded", "opa"] = Field(
        "embedded",
        description="Who decides: the embedded engine, or the OPA at opa_url. Trusted with every decision.",
    )
    opa_url: str | None = Field(
        None,
        description="https://host:port, http://127.0.0.1:port or unix:///path/to/socket. Trusted: who answers there "
        "allows or denies, and sees the arguments of every action.",
    )
    opa_token_file: Path | None = Field(
        None,
        description="Holds the bearer token for OPA's own authorization; read again for each new connection. Who reads "
        "it can ask OPA, and change its policy if OPA's authorization lets this token.",
    )
    opa_ca_file: Path | None = Field(
        None,
        description="PEM certificates that vouch for OPA's. Default: the system's. Trusted: who writes here can pose "
        "as OPA.",
    )
    opa_bundle: str | None = Field(
        None,
        description="Which of OPA's bundles holds the policy. Default: the only one it has.",
    )
    opa_timeout_ms: int = Field(
        1_000, ge=10, le=30_000, description="How long a decision may take, the wait for its turn included."
    )
    opa_in_flight: int = Field(16, ge=1, le=1_024, description="Questions to OPA at once, each on its connection.")
    opa_waiting: int = Field(
        256, ge=0, le=65_536, description="Questions that may wait for their turn; more are refused at once."
    )

    @field_validator("opa_url")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        try:
            plain = "@" not in value and not (parts.query or parts.fragment) and (parts.port or 1) > 0
        except ValueError:
            plain = False
        match parts.scheme:
            case "unix":
                right = parts.path.startswith("/") and not parts.netloc
            case "https":
                right = bool(parts.hostname) and parts.path in {"", "/"}
            case "http":
                # Anybody between the two could read the arguments of every action, and answer in OPA's place.
                right = parts.hostname in LOOPBACK and parts.path in {"", "/"}
            case _:
                right = False
        if not plain or not right:
            raise ValueError(
                "must be like https://opa.example:8181, http://127.0.0.1:8181 (loopback only) or unix:///run/opa.sock, "
                "without user and path"
            )
        return value.rstrip("/") if parts.scheme != "unix" else value

    @model_validator(mode="after")
    def _engine_is_whole(self) -> PolicyEngineSettings:
        if self.policy_engine == "opa" and self.opa_url is None:
            raise ValueError("policy_engine opa needs opa_url")
        lost = [name for name in BELONG_TO_OPA if getattr(self, name) is not None]
        if self.policy_engine != "opa" and lost:
            # Otherwise somebody would believe that OPA decides.
            raise ValueError(f"{' and '.join(lost)} only count with policy_engine opa; set it, or remove them")
        return self
