"""The `Signer` over key files of this machine: small teams, development, and the seed of a real KMS later.

Purposes: `grants` and `access` (ES256), `heads` (Ed25519). Each has keys of its own, so that a grant can never be taken
for an access token or a signed head. Who can read the folder can sign everything: it is trusted like the database.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Final, NoReturn

from stepgrant._keys import JoseError, SecretKey
from stepgrant.canonical import CanonicalError, loads
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.ports import PublicKey, Signature
from stepgrant_broker.signing.folder import KeyFolder
from stepgrant_broker.signing.publishing import ALGORITHMS, published

KIND: Final = "jwk"


class LocalSigner:
    """Signs with the newest key of a purpose; publishes all of them, newest first."""

    def __init__(self, keys: Mapping[str, tuple[SecretKey, ...]]) -> None:
        self._keys = keys
        self._published = {purpose: tuple(published(key.public) for key in found) for purpose, found in keys.items()}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> LocalSigner:
        """Read the keys; with `create`, make the folder and the keys that are missing.

        Raises:
            SignerUnavailable: no folder, no key, wrong owner or mode, or a file that is no such key.
        """
        folder = KeyFolder(path, create=create)
        return cls({purpose: keys_in(folder, purpose, alg) for purpose, alg in ALGORITHMS.items()})

    async def sign(self, purpose: str, data: bytes) -> Signature:
        """As `Signer`."""
        key = self._of(purpose)[0]
        return Signature(key.public.jkt, key.public.alg, key.sign(data))

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        """As `Signer`."""
        self._of(purpose)
        return self._published[purpose]

    def _of(self, purpose: str) -> tuple[SecretKey, ...]:
        keys = self._keys.get(purpose, ())
        if not keys:
            raise SignerUnavailable(f"there is no key to sign {purpose} with")
        return keys

    def __repr__(self) -> str:
        """Key ids only."""
        return f"LocalSigner({', '.join(f'{name}={keys[0].public.jkt}' for name, keys in self._keys.items())})"

    def __reduce__(self) -> NoReturn:
        """Keys stay in the process."""
        raise TypeError("a signer can be neither pickled nor copied")


def keys_in(folder: KeyFolder, purpose: str, alg: str) -> tuple[SecretKey, ...]:
    """The keys of a purpose, newest first; with a folder that creates, one is made. Raises `SignerUnavailable`."""

    def make() -> bytes:
        return json.dumps(SecretKey.generate(alg).to_private_jwk(), indent=2).encode() + b"\n"

    keys = []
    for content in folder.read(purpose, KIND, make):
        try:
            document = loads(content)
            key = SecretKey.from_jwk(document if isinstance(document, dict) else {})
        except (CanonicalError, JoseError) as error:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is damaged ({error})") from None
        if key.public.alg != alg:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is not for {alg}")
        keys.append(key)
    return tuple(keys)
