"""Keys for signing and verifying: P-256 for ES256, Ed25519 for EdDSA, and no others.

A verifying key knows the one algorithm it verifies, so no token can choose another. Parsed public keys are remembered
by their exact coordinates (bounded), because the same few keys sign every call. PyJWT's `from_jwk` does not read them:
it takes private keys and non-canonical base64url where a public key is meant, and Ed25519 points of small order.

ES256 goes to `cryptography` directly, because a broker verifies one and signs one in each call that grants. PyJWT is
loaded with the first EdDSA signature: what agents sign with is ES256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from stepgrant.canonical import CanonicalError, b64u, b64u_decode, dumps

if TYPE_CHECKING:
    from jwt.algorithms import OKPAlgorithm

KEY_CACHE_SIZE: Final = 2048

PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_COORDINATE_BYTES: Final = 32

_ES256: Final = ec.ECDSA(hashes.SHA256())

_ED25519_PRIME: Final = 2**255 - 19
_ED25519_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _ED25519_PRIME - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)
"""The y coordinates of the eight points under which anybody can make signatures that verify."""


@cache
def _eddsa() -> OKPAlgorithm:
    from jwt.algorithms import OKPAlgorithm  # noqa: PLC0415 - a quarter of what an agent's start would load

    return OKPAlgorithm()


class JoseError(Exception):
    """A token or key is refused. `reason` is stable and has no content of the token in it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key with the only algorithm it may verify. `jkt` is its RFC 7638 thumbprint."""

    alg: str
    jkt: str
    _members: tuple[tuple[str, str], ...] = field(repr=False)
    _verifies: Callable[[bytes, bytes], bool] = field(repr=False, compare=False)

    @property
    def jwk(self) -> dict[str, str]:
        """The public JWK with its required members only; a new one each time, for the key itself is shared."""
        return dict(self._members)

    def verify(self, data: bytes, signature: bytes) -> None:
        """Raises `JoseError` (bad_signature)."""
        if not self._verifies(data, signature):
            raise JoseError("bad_signature", "the signature is not by this key")


class SecretKey:
    """A private signing key in memory: masked, not picklable, not copyable."""

    __slots__ = ("_es256", "_key", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        # Known once: that a key is of an abstract class takes longer to find out than most of what a call does.
        self._es256 = key if isinstance(key, ec.EllipticCurvePrivateKey) else None
        self.public = _public_of(key)

    @classmethod
    def generate(cls, alg: str = "ES256") -> SecretKey:
        """A fresh key for `ES256` or `EdDSA`."""
        if alg == "ES256":
            return cls(ec.generate_private_key(ec.SECP256R1()))
        if alg == "EdDSA":
            return cls(ed25519.Ed25519PrivateKey.generate())
        raise JoseError("bad_algorithm", "only ES256 and EdDSA keys are made")

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> SecretKey:
        """Read a private JWK (RFC 7517); its public part must belong to its private part."""
        public = verifying_key({name: value for name, value in jwk.items() if name != "d"})
        secret = _coordinate(jwk, "d")
        try:
            key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = (
                ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
                if public.alg == "ES256"
                else ed25519.Ed25519PrivateKey.from_private_bytes(secret)
            )
        except ValueError:
            raise JoseError("bad_key", "the private member is out of range") from None
        made = cls(key)
        if made.public.jkt != public.jkt:
            raise JoseError("bad_key", "the private member belongs to another public key")
        return made

    def to_private_jwk(self) -> dict[str, str]:
        """The private JWK, for a key file of mode 0600 and nothing else."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            secret = self._key.private_numbers().private_value.to_bytes(_COORDINATE_BYTES, "big")
        else:
            secret = self._key.private_bytes_raw()
        return {**self.public.jwk, "d": b64u(secret)}

    def sign(self, data: bytes) -> bytes:
        """The JOSE signature: 64 bytes, `r || s` for ES256."""
        if self._es256 is not None:
            r, s = decode_dss_signature(self._es256.sign(data, _ES256))
            return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return _eddsa().sign(data, cast("ed25519.Ed25519PrivateKey", self._key))

    def __repr__(self) -> str:
        return f"SecretKey({self.public.alg}, jkt={self.public.jkt}, <masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key can be neither pickled nor copied")


def verifying_key(jwk: Mapping[str, object]) -> VerifyingKey:
    """Read a public JWK of P-256 or Ed25519. Parsed keys are remembered by their exact coordinates.

    Raises `JoseError`: private_key for one with a private member (somebody gave a secret away; using it would hide
    that), bad_key for anything else.
    """
    if not PRIVATE_MEMBERS.isdisjoint(jwk):
        raise JoseError("private_key", "the key has private members")
    match jwk.get("kty"), jwk.get("crv"):
        case "EC", "P-256":
            _coordinate(jwk, "x"), _coordinate(jwk, "y")
            key = _p256(str(jwk["x"]), str(jwk["y"]))
        case "OKP", "Ed25519":
            _coordinate(jwk, "x")
            key = _ed25519(str(jwk["x"]))
        case _:
            raise JoseError("bad_key", "neither an EC key on P-256 nor an OKP key on Ed25519")
    if jwk.get("alg", key.alg) != key.alg or jwk.get("use", "sig") != "sig":
        raise JoseError("bad_key", "the key is marked for another alg or use")
    return key


@lru_cache(maxsize=KEY_CACHE_SIZE)
def _p256(x: str, y: str) -> VerifyingKey:
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(b64u_decode(x), "big"), int.from_bytes(b64u_decode(y), "big"), ec.SECP256R1()
    )
    try:
        key = numbers.public_key()
    except ValueError:
        raise JoseError("bad_key", "the point is not on P-256") from None
    jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return VerifyingKey("ES256", thumbprint(jwk), tuple(jwk.items()), lambda data, sig: _is_es256(key, data, sig))


def _is_es256(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is `r || s` by this key (RFC 7518 §3.4), in that one length: no second text may pass."""
    if len(signature) != 2 * _COORDINATE_BYTES:
        return False
    r, s = signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]
    try:
        key.verify(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), data, _ES256)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=KEY_CACHE_SIZE)
def _ed25519(x: str) -> VerifyingKey:
    raw = b64u_decode(x)
    if (int.from_bytes(raw, "little") & (2**255 - 1)) % _ED25519_PRIME in _ED25519_SMALL_ORDER:
        raise JoseError("bad_key", "a point of small order: anybody could sign for it")
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": x}
    return VerifyingKey("EdDSA", thumbprint(jwk), tuple(jwk.items()), lambda data, sig: _eddsa().verify(data, key, sig))


def _public_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> VerifyingKey:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _ed25519(b64u(key.public_key().public_bytes_raw()))
    if not isinstance(key.curve, ec.SECP256R1):
        raise JoseError("bad_key", "an EC key that is not on P-256")
    numbers = key.public_key().public_numbers()
    return _p256(*(b64u(part.to_bytes(_COORDINATE_BYTES, "big")) for part in (numbers.x, numbers.y)))


def thumbprint(required_members: Mapping[str, str]) -> str:
    """RFC 7638; the argument holds the required members of the key type and nothing else."""
    return b64u(hashlib.sha256(dumps(required_members)).digest())


def _coordinate(jwk: Mapping[str, object], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise JoseError("bad_key", f"the key has no member {name}")
    try:
        data = b64u_decode(text)
    except CanonicalError:
        raise JoseError("bad_key", f"the member {name} is not base64url in its one form") from None
    if len(data) != _COORDINATE_BYTES:
        raise JoseError("bad_key", f"the member {name} has not {_COORDINATE_BYTES} bytes")
    return data
