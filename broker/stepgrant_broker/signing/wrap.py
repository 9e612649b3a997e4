"""The `KeyWrap` over key files of this machine: AES-256-GCM for run keys and static secrets at rest.

Rules:

* What is wrapped is bound to its place by associated data, so that a row's secret moved to another row does not unwrap.
* A nonce is 96 random bits. One key wraps run keys and secrets only, far below the 2^32 messages that allows.
* A newer key wraps as soon as it is seen; older ones unwrap until their files are taken away, which is right once
  nothing rests under them any more (`usecases/rewrap.py`).
* `derive` gives purposes a secret of their own (the nonce key of all replicas) from a root key that wraps nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
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
WRAP: Final = "wrap"
ROOT: Final = "root"
LOOK_S: Final = 1.0


class WrapError(StoreUnavailable):
    """What rests does not unwrap: another key, another place, or changed bytes."""


class LocalWrap:
    """Wraps with the newest key, unwraps with any; and derives secrets for other purposes."""

    def __init__(self, wrap_keys: Sequence[bytes], root: bytes, folder: KeyFolder | None = None) -> None:
        self._take(wrap_keys)
        self._root = root
        self._folder = folder
        self._stamp = None if folder is None else folder.stamp()
        self._look_at = 0.0

    def _take(self, wrap_keys: Sequence[bytes]) -> None:
        # In one assignment: other threads wrap and unwrap meanwhile.
        self._keys = _key_id(wrap_keys[0]), {_key_id(key): AESGCM(key) for key in wrap_keys}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> LocalWrap:
        """Read the keys; with `create`, make the folder and the keys that are missing. Raises `SignerUnavailable`."""
        folder = KeyFolder(path, create=create)
        return cls(_read(folder, WRAP), _read(folder, ROOT)[0], KeyFolder(path))

    async def refresh(self) -> None:
        """As `KeyWrap`."""
        if self._folder is not None and self._folder.stamp() != self._stamp:
            self._read_again()

    def _read_again(self) -> None:
        if self._folder is not None:
            stamp = self._folder.stamp()
            self._take(_read(self._folder, WRAP))
            self._stamp = stamp

    async def rotate(self) -> str:
        """Make a newer key, which wraps from now on; its id. Other brokers see it by themselves.

        Raises `SignerUnavailable`.
        """
        if self._folder is None:
            raise SignerUnavailable("these keys are in no folder")
        self._folder.add(WRAP, KIND, new_key())
        self._read_again()
        return self.key_id

    @property
    def key_id(self) -> str:
        """As `KeyWrap`."""
        return self._keys[0]

    async def rewrap_files(self) -> int:
        """Bring the key files under a newer key of whoever guards them; how many. Plain files have no guard."""
        return 0

    def wrap(self, plain: bytes, aad: bytes) -> Wrapped:
        """As `KeyWrap`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        newest, ciphers = self._keys
        return Wrapped(newest, nonce, ciphers[newest].encrypt(nonce, plain, aad))

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """As `KeyWrap`. Raises `WrapError`."""
        cipher = self._keys[1].get(wrapped.key_id) or self._found(wrapped.key_id)
        if cipher is None:
            raise WrapError("wrapped under a key that is not in the key folder")
        try:
            return cipher.decrypt(wrapped.nonce, wrapped.ciphertext, aad)
        except (InvalidTag, ValueError):
            raise WrapError("what is stored does not unwrap: it was changed, or moved from elsewhere") from None

    def _found(self, key_id: str) -> AESGCM | None:
        """A key that another broker made and this one has not seen yet. Looked for once a second at most."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_S
        self._read_again()
        return self._keys[1].get(key_id)

    def derive(self, label: bytes) -> bytes:
        """32 bytes for one purpose (HKDF-SHA-256); the same on every replica that has the folder."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(self._root)

    def __repr__(self) -> str:
        """Key ids only."""
        return f"LocalWrap({', '.join(self._keys[1])}, <masked>)"

    def __reduce__(self) -> NoReturn:
        """Keys stay in the process."""
        raise TypeError("a key wrap can be neither pickled nor copied")


def _key_id(key: bytes) -> str:
    return "local-" + b64u(hmac.digest(key, b"stepgrant wrap key id", hashlib.sha256)[:9])


def new_key() -> bytes:
    """The content of a key file."""
    return b64u(secrets.token_bytes(KEY_BYTES)).encode() + b"\n"


def _read(folder: KeyFolder, purpose: str) -> list[bytes]:
    keys = []
    for content in folder.read(purpose, KIND, new_key):
        try:
            key = b64u_decode(content.decode("latin-1").strip())
        except CanonicalError:
            key = b""
        if len(key) != KEY_BYTES:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is damaged")
        keys.append(key)
    return keys
