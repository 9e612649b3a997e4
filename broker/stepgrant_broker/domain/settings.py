"""The numbers that rules depend on. Times in milliseconds unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults of `protocol.md` and `standards.md` §3A.4; `config.py` says whom each setting trusts."""

    issuer_url: str = "http://127.0.0.1:8423"
    lease_ms: int = 30_000
    grant_ttl_s: int = 60
    grant_ttl_max_s: int = 300
    redeem_window_ms: int = 10_000
    leeway_ms: int = 5_000
    attestation_max_age_ms: int = 60_000
    answer_kept_ms: int = 86_400_000
    proof_kept_ms: int = 900_000
    approval_answer_max_s: int = 2_592_000
    approval_valid_max_s: int = 86_400
    settle_max_ms: int = 86_400_000
    max_steps: int = 100_000
    max_result_bytes: int = 262_144
    max_args_bytes: int = 262_144
    max_input_bytes: int = 262_144
    max_tries: int = 8
    kept_ms: Mapping[str, int] = field(default_factory=dict)
    """How long the values of an ended run are kept, by its outcome; those of another one for ever."""
