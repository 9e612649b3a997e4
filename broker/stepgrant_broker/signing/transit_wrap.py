"""The `KeyWrap` under a key of Vault's Transit engine: what is in the key folder is worth nothing without Vault.

Rules:
* The keys are 256-bit data keys that Transit made and wrapped (`datakey/wrapped`); only that form rests in the folder.
  Each is decrypted once, when it is first seen, and then lives in this process's memory: wrapping stays local and fast,
  and a broker that runs goes on while Vault is away. One that starts needs Vault.
* Whoever takes the folder and the database can read nothing; who may use the Transit key can. Withdrawing the broker's
  session there stops the next start, not a process that has the keys already.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.signing.folder import KeyFile, KeyFolder
from stepgrant_broker.signing.wrap import KEY_BYTES, ROOT, WRAP, LocalWrap
from stepgrant_broker.vault.client import data_of
from stepgrant_broker.vault.faults import VaultFault, VaultMissing, signer_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepgrant_broker.vault.client import Vault

KIND: Final = "vault"
KEY_TYPE: Final = "aes256-gcm96"
PREFIX: Final = "vault:v"
DEADLINE_S: Final = 10.0


def wrap_rules(mount: str, name: str) -> Mapping[str, tuple[str, ...]]:
    """What the broker's own session must be allowed: path to capabilities."""
    return {f"{mount}/{what}/{name}": ("update",) for what in ("datakey/wrapped", "decrypt", "rewrap")}


class Transit:
    """One key of a Transit engine, as the wrap uses it. All raise `SignerUnavailable`."""

    def __init__(self, vault: Vault, mount: str, name: str) -> None:
        self._vault = vault
        self._mount = mount
        self._name = name

    async def new_key(self) -> bytes:
        """A new data key, wrapped: the content of a key file."""
        return self._text(await self._ask("datakey/wrapped", {"bits": 8 * KEY_BYTES})).encode() + b"\n"

    async def rewrapped(self, content: bytes) -> bytes:
        """The same data key under the Transit key's newest version."""
        return self._text(await self._ask("rewrap", {"ciphertext": _ciphertext(content)})).encode() + b"\n"

    async def opened(self, content: bytes) -> bytes:
        """The data key."""
        plain = (await self._ask("decrypt", {"ciphertext": _ciphertext(content)})).get("plaintext")
        try:
            key = base64.b64decode(plain if isinstance(plain, str) else "", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise SignerUnavailable(f"what Vault decrypted under {self._name} is no key of ours")
        return key

    async def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        path = f"{self._mount}/{what}/{self._name}"
        try:
            return data_of(await self._vault.request("POST", path, body, deadline_s=DEADLINE_S))
        except VaultMissing:
            raise SignerUnavailable(
                f"Vault has no transit key {self._name}; `stepgrant vault setup` makes it"
            ) from None
        except VaultFault as fault:
            raise signer_fault(fault) from None

    def _text(self, data: Mapping[str, Any]) -> str:
        text = data.get("ciphertext")
        if not isinstance(text, str) or not text.startswith(PREFIX) or not text.isprintable():
            raise SignerUnavailable(f"Vault gave no wrapped key under {self._name}")
        return text


def _ciphertext(content: bytes) -> str:
    text = content.decode("latin-1").strip()
    if not text.startswith(PREFIX):
        raise SignerUnavailable("a key file is damaged: it does not hold what Vault wrapped")
    return text


class TransitWrap(LocalWrap):
    """Wraps like `LocalWrap`, with keys that only Vault can open."""

    def __init__(self, keys: Sequence[tuple[bytes, bytes]], root: bytes, folder: KeyFolder, transit: Transit) -> None:
        super().__init__([plain for _, plain in keys], root)
        self._known = dict(keys)
        self._files = folder
        self._transit = transit
        self._seen = folder.stamp()

    @classmethod
    async def open_with(cls, transit: Transit, path: str | os.PathLike[str], *, create: bool = False) -> TransitWrap:
        """Read the keys and let Vault open them; with `create`, make the folder and what is missing in it.

        Raises `SignerUnavailable`.
        """
        folder = KeyFolder(path, create=create)
        files: dict[str, list[KeyFile]] = {}
        for purpose in (WRAP, ROOT):
            made = await transit.new_key() if create and not _has(folder, purpose) else b""
            files[purpose] = folder.files(purpose, KIND, partial(bytes, made))
        keys = [(file.content, await transit.opened(file.content)) for file in files[WRAP]]
        return cls(keys, await transit.opened(files[ROOT][0].content), KeyFolder(path), transit)

    async def refresh(self) -> None:
        """As `KeyWrap`. Asks Vault for what is new in the folder, and for nothing else."""
        stamp = self._files.stamp()
        if stamp == self._seen:
            return
        known = {}
        for file in self._wrap_files():
            known[file.content] = self._known.get(file.content) or await self._transit.opened(file.content)
        self._known = known
        self._take(list(known.values()))
        self._seen = stamp

    async def rotate(self) -> str:
        """As `LocalWrap`."""
        self._files.add(WRAP, KIND, await self._transit.new_key())
        await self.refresh()
        return self.key_id

    async def rewrap_files(self) -> int:
        """Bring the files under the Transit key's newest version; how many. Older versions can then be withdrawn."""
        done = 0
        for purpose in (WRAP, ROOT):
            for file in self._files.files(purpose, KIND, bytes):
                self._files.destroy(purpose, KIND, file.number, await self._transit.rewrapped(file.content))
                done += 1
        return done

    def _wrap_files(self) -> list[KeyFile]:
        return self._files.files(WRAP, KIND, bytes)

    def __repr__(self) -> str:
        """Key ids only."""
        return f"TransitWrap({', '.join(self._keys[1])}, <masked>)"


def _has(folder: KeyFolder, purpose: str) -> bool:
    return any(name.startswith(f"{purpose}-") and name.endswith(f".{KIND}") for name, *_ in folder.stamp())
