"""The `KeyWrap` over key files of this machine: AES-256-GCM for run keys and static secrets at rest.

Rules:

* What is wrapped is bound to its place by associated data, so that a row's secret moved to another row does not unwrap.
* A nonce is 96 random bits. One key wraps run keys and secrets only, far below the 2^32 messages that allows.
* `derive` gives purposes a secret of their own (the nonce key of all replicas) from a root key that wraps nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stepgrant.canonical import CanonicalError, b64u, b64u_decode
from stepgrant_broker.domain.errors import SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.signing.folder import KeyFolder

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
KIND: Final = "key"


class WrapError(StoreUnavailable):
    """What rests does not unwrap: another key, another place, or changed bytes."""


class LocalWrap:
    """Wraps with the newest key, unwraps with any; and derives secrets for other purposes."""

    def __init__(self, wrap_keys: Sequence[bytes], root: bytes) -> None:
        self._ciphers = {_key_id(key): AESGCM(key) for key in wrap_keys}
        self._newest = _key_id(wrap_keys[0])
        self._root = root

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> LocalWrap:
        """Read the keys; with `create`, make the folder and the keys that are missing. Raises `SignerUnavailable`."""
        folder = KeyFolder(path, create=create)
        return cls(_read(folder, "wrap"), _read(folder, "root")[0])

    def wrap(self, plain: bytes, aad: bytes) -> Wrapped:
        """As `KeyWrap`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Wrapped(self._newest, nonce, self._ciphers[self._newest].encrypt(nonce, plain, aad))

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """As `KeyWrap`. Raises `WrapError`."""
        cipher = self._ciphers.get(wrapped.key_id)
        if cipher is None:
            raise WrapError("wrapped under a key that is not in the key folder")
        try:
            return cipher.decrypt(wrapped.nonce, wrapped.ciphertext, aad)
        except (InvalidTag, ValueError):
            raise WrapError("what is stored does not unwrap: it was changed, or moved from elsewhere") from None

    def derive(self, label: bytes) -> bytes:
        """32 bytes for one purpose (HKDF-SHA-256); the same on every replica that has the folder."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(self._root)

    def __repr__(self) -> str:
        """Key ids only."""
        return f"LocalWrap({', '.join(self._ciphers)}, <masked>)"

    def __reduce__(self) -> NoReturn:
        """Keys stay in the process."""
        raise TypeError("a key wrap can be neither pickled nor copied")


def _key_id(key: bytes) -> str:
    return "local-" + b64u(hmac.digest(key, b"stepgrant wrap key id", hashlib.sha256)[:9])


def _read(folder: KeyFolder, purpose: str) -> list[bytes]:
    def make() -> bytes:
        return b64u(secrets.token_bytes(KEY_BYTES)).encode() + b"\n"

    keys = []
    for content in folder.read(purpose, KIND, make):
        try:
            key = b64u_decode(content.decode("latin-1").strip())
        except CanonicalError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is damaged")
        keys.append(key)
    return keys
