"""Public keys of other people's issuers: RSA, the NIST curves and Ed25519, each with the algorithms it may verify.

Rules:
* A key verifies only algorithms of its own type (and only its `alg`, if it names one), so no token can have a public
  key used as a shared secret, or a curve's key for another curve.
* A set that publishes a private or a symmetric key is refused whole: whoever has read it can sign. So is one in which
  two different keys share a `kid`.
* Keys of unknown kinds, for another `use`, or too weak are left out, as RFC 7517 §5 says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from stepgrant._keys import PRIVATE_MEMBERS, JoseError, verifying_key
from stepgrant.canonical import CanonicalError, b64u_decode

Verifies: TypeAlias = Callable[[bytes, bytes], bool]

MAX_KEYS: Final = 100
MAX_KID_CHARS: Final = 512
RSA_MIN_BITS: Final = 2048
RSA_MAX_BITS: Final = 8192
_MAX_EXPONENT: Final = 1 << 32
_RSA: Final[Mapping[str, Any]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
}
_CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve, int, Any]]] = {
    "P-256": ("ES256", ec.SECP256R1(), 32, ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1)),
    "P-384": ("ES384", ec.SECP384R1(), 48, ECAlgorithm(ECAlgorithm.SHA384, ec.SECP384R1)),
    "P-521": ("ES512", ec.SECP521R1(), 66, ECAlgorithm(ECAlgorithm.SHA512, ec.SECP521R1)),
}
ALGORITHMS: Final = frozenset({*_RSA, *(curve[0] for curve in _CURVES.values()), "EdDSA"})
"""All that is ever accepted: asymmetric, and none that was broken."""


class KeySetRefused(Exception):
    """A key set that must not be used at all; the text says why."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key. `members` are what makes it equal to another one."""

    kid: str | None
    members: tuple[str, ...]
    _verifies: Mapping[str, Verifies] = field(repr=False, compare=False)

    @property
    def algorithms(self) -> frozenset[str]:
        """What it may verify."""
        return frozenset(self._verifies)

    def verify(self, alg: str, data: bytes, signature: bytes) -> None:
        """Raises `JoseError`: bad_algorithm for one that is not this key's, else bad_signature."""
        verifies = self._verifies.get(alg)
        if verifies is None:
            raise JoseError("bad_algorithm", "the token's alg is not one of the key")
        if not verifies(data, signature):
            raise JoseError("bad_signature", "the signature is not by this key")


def read_key_set(document: Mapping[str, object], uses: frozenset[str | None]) -> tuple[IssuerKey, ...]:
    """The usable keys of a JWKS (RFC 7517 §5).

    Args:
        document: the parsed JSON object.
        uses: values of `use` that are meant for such tokens; None stands for its absence.

    Raises:
        KeySetRefused: it is no JWKS, has too many keys, gives a private key away, or has one `kid` for two keys.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeySetRefused("this is no JWKS: it has no list `keys`")
    if len(entries) > MAX_KEYS:
        raise KeySetRefused(f"the JWKS has more than {MAX_KEYS} keys")
    found: list[IssuerKey] = []
    by_kid: dict[str, IssuerKey] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        if not PRIVATE_MEMBERS.isdisjoint(entry):
            raise KeySetRefused("the JWKS publishes a private or symmetric key; the issuer must replace that key")
        key = _read_key(entry) if entry.get("use") in uses else None
        if key is None:
            continue
        if key.kid is not None and by_kid.setdefault(key.kid, key) != key:
            raise KeySetRefused("two different keys of the JWKS share a kid")
        found.append(key)
    return tuple(dict.fromkeys(found))


def _read_key(jwk: Mapping[str, object]) -> IssuerKey | None:
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        return None
    try:
        match jwk.get("kty"):
            case "RSA":
                members, verifies = _rsa(jwk)
            case "EC":
                members, verifies = _ec(jwk)
            case "OKP":
                members, verifies = _okp(jwk)
            case _:
                return None
    except (JoseError, CanonicalError, ValueError):
        return None
    fits = {name: check for name, check in verifies.items() if alg is None or alg == name}
    return IssuerKey(kid, members, MappingProxyType(fits)) if fits else None


def _rsa(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], dict[str, Verifies]]:
    modulus, exponent = _number(jwk, "n"), _number(jwk, "e")
    if not RSA_MIN_BITS <= modulus.bit_length() <= RSA_MAX_BITS or not 1 < exponent < _MAX_EXPONENT:
        raise JoseError("bad_key", "an RSA key of an unusual size")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()

    def by(algorithm: Any) -> Verifies:  # noqa: ANN401 - of PyJWT
        return lambda data, signature: bool(algorithm.verify(data, key, signature))

    return ("RSA", str(modulus), str(exponent)), {name: by(algorithm) for name, algorithm in _RSA.items()}


def _ec(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], dict[str, Verifies]]:
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise JoseError("bad_key", "an unknown curve")
    alg, curve, size, algorithm = _CURVES[name]
    x, y = _bytes(jwk, "x"), _bytes(jwk, "y")
    if len(x) != size or len(y) != size:
        raise JoseError("bad_key", "a coordinate of another size than the curve's")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    key = numbers.public_key()
    members = (name, str(numbers.x), str(numbers.y))
    return members, {alg: lambda data, signature: bool(algorithm.verify(data, key, signature))}


def _okp(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], dict[str, Verifies]]:
    # The SDK's reader also refuses points of small order, under which anybody can make signatures.
    key = verifying_key({name: jwk[name] for name in ("kty", "crv", "x") if name in jwk})

    def verifies(data: bytes, signature: bytes) -> bool:
        try:
            key.verify(data, signature)
        except JoseError:
            return False
        return True

    return ("OKP", key.jkt), {key.alg: verifies}


def _bytes(jwk: Mapping[str, object], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise JoseError("bad_key", f"the key has no member {name}")
    return b64u_decode(text)


def _number(jwk: Mapping[str, object], name: str) -> int:
    return int.from_bytes(_bytes(jwk, name), "big")
