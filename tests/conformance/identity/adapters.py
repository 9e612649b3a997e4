"""The kinds of identity that the suite runs over. A new one joins by a class here and a line in `ADAPTERS`.

An adapter forges tokens of its kind: right ones, and ones with any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from forging import ForgersKey, eddsa, es256
from stepgrant_broker.api.token import ReadAssertion
from stepgrant_broker.identity.enrolled import read_assertion

NOW_S: Final = 1_800_000_000
ISSUER: Final = "https://broker.example"
WORKLOAD: Final = "wkl_01"


@dataclass(frozen=True)
class EnrolledKey:
    """An assertion by the key that was enrolled."""

    key: ForgersKey = field(default_factory=es256)
    read: ReadAssertion = read_assertion
    method: str = "enrolled_key"
    lifetime_s: int = 300

    def token(self, *, by: ForgersKey | None = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        """A token; a claim or header member that is given replaces the right one, `None` leaves it out."""
        key = by or self.key
        given = {
            "iss": WORKLOAD, "sub": WORKLOAD, "aud": ISSUER, "iat": NOW_S - 1, "exp": NOW_S + 60,
            "jti": "0123456789abcdef", **claims,
        }  # fmt: skip
        named = {"alg": key.alg, "typ": "client-authentication+jwt", **(header or {})}
        return key.jws(
            {k: v for k, v in named.items() if v is not None}, {k: v for k, v in given.items() if v is not None}
        )


Make: TypeAlias = Callable[[], EnrolledKey]
ADAPTERS: Final[Mapping[str, Make]] = {"enrolled ES256": EnrolledKey, "enrolled EdDSA": lambda: EnrolledKey(eddsa())}
