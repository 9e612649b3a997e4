"""A key of Vault's Transit engine as it is read: its versions, which of them signs, and what is published.

Rules:
* Only a key that cannot leave Vault is used: `exportable` or `allow_plaintext_backup` is refused, by name.
* A version's id is the thumbprint of its public key, as everywhere: versions and names of Vault are nobody's business.
* A new version is published when it is seen and signs only `settle_s` later, so that every replica, and every resource
  server that asks one, knows it before it meets a signature of it. With nothing older that may sign, it signs at once.
* What Vault does not show any more (`min_decryption_version` was raised) is published no longer: that is how operators
  withdraw a key. Raise it only when the longest token of the older versions is over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from stepgrant import canonical
from stepgrant._keys import JoseError, VerifyingKey, verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.ports import PublicKey
from stepgrant_broker.signing.publishing import published

TYPES: Final[Mapping[str, str]] = {"ES256": "ecdsa-p256", "EdDSA": "ed25519"}
_P256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key. `made_at` is Vault's time, in milliseconds since the epoch."""

    number: int
    key: VerifyingKey
    made_at: int
    may_sign: bool


@dataclass(frozen=True, slots=True)
class TransitKey:
    """A key with all versions that Vault shows, newest first."""

    versions: tuple[Version, ...]

    def signing(self, *, now: int, seen: Mapping[int, float], monotonic: float, settle_s: float) -> Version:
        """The version that signs now. `seen`: when each was first seen (monotonic). Raises `SignerUnavailable`."""
        eligible = [version for version in self.versions if version.may_sign]
        if not eligible:
            raise SignerUnavailable("no version of the key may sign; see min_encryption_version")
        for version in eligible:
            # Vault's clock may be off, so what was seen here for long enough counts whatever it says.
            if now - version.made_at >= 1000 * settle_s or monotonic - seen.get(version.number, monotonic) >= settle_s:
                return version
        return eligible[-1]

    def published(self, first: Version) -> tuple[PublicKey, ...]:
        """All versions, the one that signs first."""
        return tuple(published(version.key) for version in (first, *(v for v in self.versions if v is not first)))


def read_key(name: str, alg: str, data: Mapping[str, Any]) -> TransitKey:
    """The key in Vault's answer (`data` of `GET transit/keys/<name>`). Raises `SignerUnavailable` with what to fix."""
    if data.get("type") != TYPES[alg]:
        raise SignerUnavailable(f"transit key {name} is no {TYPES[alg]} key; make one of another name")
    for leak in ("exportable", "allow_plaintext_backup"):
        if data.get(leak) is not False:
            raise SignerUnavailable(f"transit key {name} can leave Vault ({leak}); make a new one without it")
    if data.get("derived") is True:
        raise SignerUnavailable(f"transit key {name} is derived; make a new one without it")
    keys, least = data.get("keys"), data.get("min_encryption_version")
    if not isinstance(keys, dict) or not keys or not isinstance(least, int):
        raise SignerUnavailable(f"transit key {name}: Vault shows no versions of it")
    versions = [_version(name, alg, number, found, least) for number, found in keys.items()]
    return TransitKey(tuple(sorted(versions, key=lambda version: version.number, reverse=True)))


def _version(name: str, alg: str, number: str, found: object, least: int) -> Version:
    try:
        members = found if isinstance(found, dict) else {}
        text, made = str(members.get("public_key")), dt.datetime.fromisoformat(str(members.get("creation_time")))
        key = _p256(text) if alg == "ES256" else _ed25519(text)
        return Version(int(number), key, int(made.timestamp() * 1000), may_sign=int(number) >= least)
    except (ValueError, TypeError, JoseError, canonical.CanonicalError):
        raise SignerUnavailable(f"version {number[:10]} of transit key {name} cannot be read") from None


def _p256(pem: str) -> VerifyingKey:
    key = load_pem_public_key(pem.encode("ascii"))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise JoseError("bad_key", "no EC key")
    numbers = key.public_numbers()
    x, y = (canonical.b64u(part.to_bytes(_P256_BYTES, "big")) for part in (numbers.x, numbers.y))
    crv = "P-256" if isinstance(key.curve, ec.SECP256R1) else key.curve.name
    return verifying_key({"kty": "EC", "crv": crv, "x": x, "y": y})


def _ed25519(text: str) -> VerifyingKey:
    return verifying_key({"kty": "OKP", "crv": "Ed25519", "x": text.rstrip("=").replace("+", "-").replace("/", "_")})
