"""The `Signer` over key files of this machine: small teams, development, and the seed of a real KMS later.

Rules:
* Purposes: `grants` and `access` (ES256), `heads` (Ed25519). Each has keys of its own, so that a grant can never be
  taken for an access token or a signed head. Who can read the folder can sign everything: it is trusted like the
  database.
* A new key's file says from when on it signs (`signs_from`). Until then it is only published, so that every replica,
  and every resource server that asks one, knows it before it meets a signature of it.
* The folder is looked at again by `epochs`, which a task of the broker's calls, and never by who signs or verifies. A
  folder that cannot be read then leaves in force what was known: a running broker needs no file.
* A key that is over is published for as long as something signed by it can live; of `heads` for ever. Its private part
  is destroyed once every replica has followed.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from stepgrant._keys import JoseError, SecretKey, verifying_key
from stepgrant.canonical import CanonicalError, loads
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.keys import KeyEpoch
from stepgrant_broker.domain.ports import PublicKey, Signature
from stepgrant_broker.signing.folder import KeyFile, KeyFolder
from stepgrant_broker.signing.publishing import ALGORITHMS, HEADS, Timing, published

if TYPE_CHECKING:
    from stepgrant._keys import VerifyingKey
    from stepgrant.canonical import JsonValue
    from stepgrant_broker.domain.ports import Clock

KIND: Final = "jwk"
SIGNS_FROM: Final = "signs_from"


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A key of the folder; `secret` None: only its public part is left."""

    epoch: KeyEpoch
    secret: SecretKey | None

    @property
    def kid(self) -> str:
        """Its thumbprint."""
        return self.epoch.key.kid


class LocalSigner:
    """Signs with the newest key of a purpose whose time has come; publishes it and those that may still be needed.

    Args:
        keys: by purpose, newest first.
        folder: where they come from, to look there again.
        clock: says whether a key's time has come; by default the system's.
        timing: see there.
    """

    def __init__(
        self,
        keys: Mapping[str, tuple[LocalKey, ...]],
        *,
        folder: KeyFolder | None = None,
        clock: Clock | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
    ) -> None:
        self._keys = keys
        self._folder = folder
        self._stamp = folder.stamp() if folder is not None else ()
        self._clock = clock
        self._timing = timing
        self._withdrawn: frozenset[str] = frozenset()
        self._seen: dict[str, float] = {}
        self._alone: dict[str, LocalKey] = {}
        self._noting = threading.Lock()
        self._note_seen()
        self._note_alone()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        clock: Clock | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
    ) -> LocalSigner:
        """Read the keys; with `create`, make the folder and the keys that are missing.

        Raises:
            SignerUnavailable: no folder, no key, wrong owner or mode, or a file that is no such key.
        """
        folder = KeyFolder(path, create=create)
        made = {purpose: local_keys(folder, purpose, alg) for purpose, alg in ALGORITHMS.items()}
        return cls(made, folder=folder, clock=clock, timing=timing)

    async def sign(self, purpose: str, data: bytes) -> Signature:
        """As `Signer`."""
        return _signature(self._alone.get(purpose) or self._signing(purpose)[0], data)

    async def sign_all(self, purpose: str, data: bytes) -> tuple[Signature, ...]:
        """As `SigningKeys`."""
        return tuple(_signature(key, data) for key in self._signing(purpose))

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        """As `Signer`. Withdrawn ones, and of tokens those whose last one is over, are left out."""
        alone = self._alone.get(purpose)
        if alone is not None:
            return (alone.epoch.key,)
        keys = [key for key in self._of(purpose) if key.kid not in self._withdrawn]
        if len(keys) > 1:
            newer = [*keys[:1], *keys]
            keys = [key for key, after in zip(keys, newer, strict=False) if not self._is_over(purpose, key, after)]
            able = [key for key in keys if key.secret is not None]
            first = self._first(able) if able else keys[0]
            keys = [first, *(key for key in keys if key is not first)]
        return tuple(key.epoch.key for key in keys)

    async def epochs(self, purpose: str) -> tuple[KeyEpoch, ...]:
        """As `SigningKeys`."""
        if self._folder is not None:
            await asyncio.to_thread(self._look, self._folder)
        return tuple(key.epoch for key in self._of(purpose))

    def withdraw(self, kids: Collection[str]) -> None:
        """As `SigningKeys`."""
        self._withdrawn = frozenset(kids)
        self._note_alone()

    def make(self, purpose: str, *, at_once: bool = False) -> KeyEpoch:
        """Make a newer key of this purpose, which signs once it has settled; `at_once` where nothing else may sign.

        It blocks on the disk. Raises `SignerUnavailable`.
        """
        if self._folder is None or purpose not in ALGORITHMS:
            raise SignerUnavailable(f"there is no folder with keys for {purpose}")
        secret = SecretKey.generate(ALGORITHMS[purpose])
        # Never 0: that is a key of the beginning, which nobody has to be told of.
        signs_from = max(1, self._now() + (0 if at_once else self._timing.settle_ms))
        number = self._folder.add(purpose, KIND, _file(secret.to_private_jwk(), signs_from))
        self._look(self._folder)
        return KeyEpoch(number, published(secret.public), signs_from, signs=True)

    def destroy_ended(self) -> tuple[str, ...]:
        """Destroy the private parts that sign no more: withdrawn ones, and those that all replicas have left; whose.

        It blocks on the disk. Raises `SignerUnavailable`.
        """
        folder = self._folder
        if folder is None:
            return ()
        gone: list[str] = []
        for purpose, keys in self._keys.items():
            for key, after in zip(keys, (keys[0], *keys), strict=False):
                if key.secret is not None and (key.kid in self._withdrawn or self._has_followed(purpose, key, after)):
                    public = _file(key.secret.public.jwk, key.epoch.signs_from)
                    folder.destroy(purpose, KIND, key.epoch.number, public)
                    gone.append(key.kid)
        if gone:
            self._look(folder)
        return tuple(gone)

    def _look(self, folder: KeyFolder) -> None:
        """Read the folder again if it changed. Raises `SignerUnavailable`, and what was known stays in force."""
        stamp = folder.stamp()
        if stamp != self._stamp:
            opened = KeyFolder(folder.path)
            self._keys = {purpose: local_keys(opened, purpose, alg) for purpose, alg in ALGORITHMS.items()}
            self._note_alone()
            self._stamp = stamp
            self._note_seen()

    def _note_seen(self) -> None:
        now = time.monotonic()
        for keys in self._keys.values():
            for key in keys:
                self._seen.setdefault(key.kid, now)

    def _note_alone(self) -> None:
        """Note the one key that a purpose has, if it can sign: no clock has a say there, and each call asks for it."""
        # Keys change on a thread, withdrawals come on the loop: who is second has to see what both left.
        with self._noting:
            self._alone = {
                purpose: keys[0]
                for purpose, keys in self._keys.items()
                if len(keys) == 1 and keys[0].secret is not None and keys[0].kid not in self._withdrawn
            }

    def _of(self, purpose: str) -> tuple[LocalKey, ...]:
        keys = self._keys.get(purpose, ())
        if not keys:
            raise SignerUnavailable(f"there is no key to sign {purpose} with")
        return keys

    def _signing(self, purpose: str) -> list[LocalKey]:
        """The key that signs now, and behind it those of its overlap. Raises `SignerUnavailable`."""
        able = [key for key in self._of(purpose) if key.secret is not None and key.kid not in self._withdrawn]
        if not able:
            raise SignerUnavailable(f"the keys that signed {purpose} were revoked; `stepgrant keys rotate {purpose}`")
        if len(able) == 1:
            return able
        first = self._first(able)
        overlap = self._timing.overlap_ms(purpose)
        beside = overlap > 0 and self._now() < first.epoch.signs_from + overlap
        return [first, *(able[able.index(first) + 1 :] if beside else ())]

    def _first(self, able: Sequence[LocalKey]) -> LocalKey:
        """The newest whose time has come by the clock, or that was seen here for as long, whatever the clock says."""
        now, here, settled = self._now(), time.monotonic(), self._timing.settle_ms / 1000
        for key in able:
            if now >= key.epoch.signs_from or here - self._seen.get(key.kid, here) >= settled:
                return key
        return able[-1]

    def _is_over(self, purpose: str, key: LocalKey, after: LocalKey) -> bool:
        """True once nothing that it signed can be valid. A head is valid for ever."""
        began = after.epoch.signs_from
        return key is not after and purpose != HEADS and 0 < began <= self._now() - self._timing.life_ms

    def _has_followed(self, purpose: str, key: LocalKey, after: LocalKey) -> bool:
        began, overlap = after.epoch.signs_from, self._timing.overlap_ms(purpose)
        return key is not after and 0 < began <= self._now() - overlap - 2 * self._timing.settle_ms

    def _now(self) -> int:
        return self._clock.now() if self._clock is not None else time.time_ns() // 1_000_000

    def __repr__(self) -> str:
        """Key ids only."""
        return f"LocalSigner({', '.join(f'{name}={keys[0].kid}' for name, keys in self._keys.items())})"

    def __reduce__(self) -> NoReturn:
        """Keys stay in the process."""
        raise TypeError("a signer can be neither pickled nor copied")


def keys_in(folder: KeyFolder, purpose: str, alg: str) -> tuple[SecretKey, ...]:
    """The private keys of a purpose, newest first; with a folder that creates, one is made.

    Raises `SignerUnavailable`.
    """
    return tuple(key.secret for key in local_keys(folder, purpose, alg) if key.secret is not None)


def local_keys(folder: KeyFolder, purpose: str, alg: str) -> tuple[LocalKey, ...]:
    """The keys of a purpose, newest first; with a folder that creates, one is made. Raises `SignerUnavailable`."""

    def make() -> bytes:
        return _file(SecretKey.generate(alg).to_private_jwk(), 0)

    keys = []
    for file in folder.files(purpose, KIND, make):
        try:
            key = _read(file)
        except (CanonicalError, JoseError) as error:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is damaged ({error})") from None
        if key.epoch.key.alg != alg:
            raise SignerUnavailable(f"a {purpose} key in {folder.path} is not for {alg}")
        keys.append(key)
    return tuple(keys)


def _read(file: KeyFile) -> LocalKey:
    document = loads(file.content)
    members: Mapping[str, JsonValue] = document if isinstance(document, dict) else {}
    secret = SecretKey.from_jwk(members) if "d" in members else None
    public: VerifyingKey = secret.public if secret is not None else verifying_key(members)
    signs_from = members.get(SIGNS_FROM, 0)
    if not isinstance(signs_from, int) or isinstance(signs_from, bool) or signs_from < 0:
        raise JoseError("bad_key", f"{SIGNS_FROM} is no time")
    return LocalKey(KeyEpoch(file.number, published(public), signs_from, signs=secret is not None), secret)


def _file(jwk: Mapping[str, str], signs_from: int) -> bytes:
    members = {**jwk, SIGNS_FROM: signs_from} if signs_from else jwk
    return json.dumps(members, indent=2).encode() + b"\n"


def _signature(key: LocalKey, data: bytes) -> Signature:
    if key.secret is None:
        raise SignerUnavailable("the private part of this key was destroyed")
    return Signature(key.kid, key.epoch.key.alg, key.secret.sign(data))
