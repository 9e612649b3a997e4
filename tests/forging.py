"""Tokens and proofs as an attacker makes them: any header, any payload bytes, any signature.

Base install only, and independent of the code under test: PyJWT and `cryptography` make keys and signatures.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: object) -> str:
    return b64(json.dumps(value).encode())


@dataclass(frozen=True)
class ForgersKey:
    """A key pair; `jwk` is public, `private_jwk` is not."""

    alg: str
    key: Any

    @property
    def jwk(self) -> dict[str, str]:
        return {name: value for name, value in self._jwk(self.key.public_key()).items() if name != "key_ops"}

    @property
    def private_jwk(self) -> dict[str, str]:
        return {name: value for name, value in self._jwk(self.key).items() if name != "key_ops"}

    def _jwk(self, key: Any) -> dict[str, Any]:  # noqa: ANN401 - of `cryptography`
        kinds: dict[str, Any] = {"ES256": ECAlgorithm, "EdDSA": OKPAlgorithm, "RS256": RSAAlgorithm}
        return dict(kinds[self.alg].to_jwk(key, as_dict=True))

    def sign(self, data: bytes) -> bytes:
        if self.alg == "ES256":
            return ECAlgorithm(ECAlgorithm.SHA256).sign(data, self.key)
        if self.alg == "RS256":
            return RSAAlgorithm(RSAAlgorithm.SHA256).sign(data, self.key)
        return OKPAlgorithm().sign(data, self.key)

    def jws(self, header: object, claims: object) -> str:
        """Signed truly, whatever header and claims say; bytes are taken as the raw JSON text."""
        segments = [b64(item) if isinstance(item, bytes) else part(item) for item in (header, claims)]
        signing_input = ".".join(segments)
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"


def es256() -> ForgersKey:
    return ForgersKey("ES256", ec.generate_private_key(ec.SECP256R1()))


def eddsa(seed: bytes | None = None) -> ForgersKey:
    """A new key, or the one of this seed, for what has to be the same each time."""
    if seed is None:
        return ForgersKey("EdDSA", ed25519.Ed25519PrivateKey.generate())
    secret = hashlib.sha256(seed).digest()
    return ForgersKey("EdDSA", ed25519.Ed25519PrivateKey.from_private_bytes(secret))


def rs256(bits: int = 2048) -> ForgersKey:
    return ForgersKey("RS256", rsa.generate_private_key(public_exponent=65537, key_size=bits))
