"""How a public key is published, whoever holds its private part: its id is its RFC 7638 thumbprint."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain.ports import PublicKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant._keys import VerifyingKey

ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType({"grants": "ES256", "access": "ES256", "heads": "EdDSA"})
"""The purposes of keys, and how each signs."""


def published(key: VerifyingKey) -> PublicKey:
    """The key as it stands in a JWK Set."""
    return PublicKey(key.jkt, key.alg, MappingProxyType({**key.jwk, "alg": key.alg, "kid": key.jkt, "use": "sig"}))
