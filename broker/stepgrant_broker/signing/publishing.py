"""How a public key is published, whoever holds its private part: its id is its RFC 7638 thumbprint; and for how long.

A key's life: made, and only published (`settle_ms`); it signs; the next one signs, and for a while both do (`heads`:
`heads_overlap_ms`); then it is only published, until the last token that it signed is over (`life_ms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain.ports import PublicKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant._keys import VerifyingKey

ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType({"grants": "ES256", "access": "ES256", "heads": "EdDSA"})
"""The purposes of keys, and how each signs."""
HEADS: Final = "heads"


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of keys, in milliseconds.

    `settle_ms`: every replica looks for new keys far more often, and a resource server that meets an unknown key asks
    again after 30 s at most. `life_ms`: the longest life of a token (300 s), and as much again for clocks.
    """

    settle_ms: int = 60_000
    heads_overlap_ms: int = 7 * 86_400_000
    life_ms: int = 600_000

    def overlap_ms(self, purpose: str) -> int:
        """How long an older key goes on signing beside the newer one."""
        return self.heads_overlap_ms if purpose == HEADS else 0


def published(key: VerifyingKey) -> PublicKey:
    """The key as it stands in a JWK Set."""
    return PublicKey(key.jkt, key.alg, MappingProxyType({**key.jwk, "alg": key.alg, "kid": key.jkt, "use": "sig"}))
