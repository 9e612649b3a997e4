"""The signature of an OPA bundle (`.signatures.json`): a JWS over the hash of each file.

Rules:
* JSON is hashed by its meaning, as OPA does: keys in the order of their bytes, no space. Other files by their bytes.
* ES256 (P-256) or RS256 (2048 bits and more), by the kind of key. A signature is another one each time, so only an
  unsigned bundle has the same bytes always.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from stepgrant import canonical

SIGNATURES: Final = ".signatures.json"
STRUCTURED: Final = (".json", ".manifest")
RSA_BITS: Final = 2048


class NoSigningKey(Exception):
    """The key cannot sign a bundle: `str()` says why, and nothing of the key."""


class SigningKey:
    """A private key out of its PEM text, without passphrase."""

    def __init__(self, pem: bytes) -> None:
        """Raises `NoSigningKey`."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise NoSigningKey("it is no private key in PEM without passphrase") from None
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            self._key, self.algorithm = key, "ES256"
        elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS:
            self._key, self.algorithm = key, "RS256"
        else:
            raise NoSigningKey(f"it must be of P-256, or RSA with {RSA_BITS} bits and more")

    def __repr__(self) -> str:
        """Without the key."""
        return f"SigningKey({self.algorithm})"

    def signatures(self, files: Mapping[str, bytes]) -> bytes:
        """`.signatures.json` for these files."""
        listed = [{"name": name, "hash": _hash(name, raw), "algorithm": "SHA-256"} for name, raw in files.items()]
        signed = jwt.encode({"files": listed}, self._key, algorithm=self.algorithm)
        return canonical.dumps({"signatures": [signed]})


def _hash(name: str, raw: bytes) -> str:
    meant = _walked(canonical.loads(raw, max_bytes=len(raw))).encode() if name.endswith(STRUCTURED) else raw
    return hashlib.sha256(meant).hexdigest()


def _walked(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """The text that OPA hashes."""
    if isinstance(value, dict):
        members = sorted(value, key=lambda name: name.encode())
        return "{" + ",".join(f"{_text(name)}:{_walked(value[name])}" for name in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_walked, value)) + "]"
    return _text(value) if isinstance(value, str) else canonical.dumps(value).decode()


def _text(value: str) -> str:
    # Go escapes these two, whatever it is told about escaping.
    return json.dumps(value, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
