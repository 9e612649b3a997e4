"""The `Signer` over Vault's Transit engine: the private keys never leave Vault, so nobody can take them from this host.

Rules:
* Each purpose has a key of its own, so that a grant can never be taken for an access token or a signed head.
* A signature is asked of one named version and verified here against that version's public key before it is used: a
  wrong answer of Vault, or of somebody in its place, is refused.
* Public keys are read again every `refresh_s`, by one caller at a time while the others go on with what is known. They
  are public and stay true while Vault is away: tokens can be verified then, only not signed.
* All requests go through the one client of Vault, with its bounded queue, under a deadline of their own.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from stepgrant import canonical
from stepgrant._keys import JoseError
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.keys import KeyEpoch
from stepgrant_broker.domain.ports import PublicKey, Signature
from stepgrant_broker.signing.publishing import ALGORITHMS, Timing, published
from stepgrant_broker.signing.transit_keys import TransitKey, Version, read_key
from stepgrant_broker.vault.client import data_of
from stepgrant_broker.vault.faults import VaultFault, VaultMissing, VaultRefused, signer_fault

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock
    from stepgrant_broker.vault.client import Vault

REFRESH_S: Final = 15.0
SETTLE_S: Final = 2 * REFRESH_S
RETRY_S: Final = 1.0
DEADLINE_S: Final = 3.0
INTERNAL: Final = 500
_SIGNATURE: Final = re.compile(r"vault:v(?P<version>[1-9][0-9]{0,8}):(?P<value>[A-Za-z0-9_-]{1,512})")


@dataclass(slots=True)
class _Known:
    """What is known of one purpose's key."""

    name: str
    key: TransitKey | None = None
    seen: dict[int, float] = field(default_factory=dict)
    look_at: float = 0.0
    why_not: SignerUnavailable | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def transit_rules(mount: str, names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """What the broker's own session must be allowed in order to sign: path to capabilities."""
    rules: dict[str, tuple[str, ...]] = {}
    for name in names:
        rules |= {f"{mount}/sign/{name}": ("update",), f"{mount}/keys/{name}": ("read",)}
    return rules


class TransitSigner:
    """Signs with keys in Vault; `names` gives each purpose its key.

    Args:
        vault: the broker's client; it logs in and renews.
        mount: where the Transit engine is.
        names: purpose to key name; no two the same.
        clock: to tell how old a version is.
        refresh_s: how often public keys are read again (seconds).
        settle_s: how long a new version is only published (seconds). It signs at most `refresh_s + settle_s` after it
            was made, whatever the clocks say.
        timing: of it, how long older versions go on signing heads beside the newer one.
    """

    def __init__(
        self,
        vault: Vault,
        mount: str,
        names: Mapping[str, str],
        clock: Clock,
        *,
        refresh_s: float = REFRESH_S,
        settle_s: float = SETTLE_S,
        timing: Timing = Timing(),  # noqa: B008 - frozen
    ) -> None:
        self._vault = vault
        self._mount = mount
        self._clock = clock
        self._refresh_s = refresh_s
        self._settle_s = settle_s
        self._timing = timing
        self._withdrawn: frozenset[str] = frozenset()
        self._known = {purpose: _Known(names[purpose]) for purpose in ALGORITHMS}

    async def sign(self, purpose: str, data: bytes) -> Signature:
        """As `Signer`."""
        known = await self._current(purpose)
        version = self._signing(known)
        try:
            return await self._signed(known, version, data)
        except VaultFault as fault:
            if not isinstance(fault, VaultRefused) and fault.status != INTERNAL:
                raise _told(fault, known.name) from None
            # Perhaps this version may not sign any more (to Vault that is an internal error); then another one does.
            known.look_at = 0.0
            other = self._signing(await self._current(purpose))
            if other.number == version.number:
                raise _told(fault, known.name) from None
        try:
            return await self._signed(known, other, data)
        except VaultFault as fault:
            raise _told(fault, known.name) from None

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        """As `Signer`; the first is the one that signs."""
        known = await self._current(purpose)
        return self._of(known).published(self._signing(known))

    async def sign_all(self, purpose: str, data: bytes) -> tuple[Signature, ...]:
        """As `SigningKeys`. An older version that cannot sign any more is passed over."""
        made = [await self.sign(purpose, data)]
        known = await self._current(purpose)
        versions = self._of(known).versions
        first = next(version for version in versions if version.key.jkt == made[0].kid)
        ends = first.made_at + 1000 * self._settle_s + self._timing.overlap_ms(purpose)
        older = [one for one in versions if one.may_sign and one.number < first.number]
        for version in older if self._clock.now() < ends else ():
            try:
                made.append(await self._signed(known, version, data))
            except VaultRefused:
                known.look_at = 0.0
            except VaultFault as fault:
                raise _told(fault, known.name) from None
        return tuple(made)

    async def epochs(self, purpose: str) -> tuple[KeyEpoch, ...]:
        """As `SigningKeys`."""
        known = await self._current(purpose)
        versions = known.key.versions if known.key is not None else ()
        settle_ms = int(1000 * self._settle_s)
        return tuple(
            KeyEpoch(one.number, published(one.key), one.made_at + settle_ms, signs=one.may_sign) for one in versions
        )

    def withdraw(self, kids: Collection[str]) -> None:
        """As `SigningKeys`: what Vault does not know of, this process does not ask it for."""
        if self._withdrawn != frozenset(kids):
            self._withdrawn = frozenset(kids)
            for known in self._known.values():
                known.look_at = 0.0  # Whoever withdrew a version made another one, most likely.

    async def make(self, purpose: str) -> None:
        """Make a newer version, which settles by itself. Raises `SignerUnavailable` where Vault does not let us."""
        known = self._known.get(purpose)
        if known is None:
            raise SignerUnavailable(f"there is no key to sign {purpose} with")
        try:
            await self._vault.request("POST", f"{self._mount}/keys/{known.name}/rotate", deadline_s=DEADLINE_S)
        except VaultRefused:
            raise SignerUnavailable(
                f"this broker may not rotate in Vault; run: vault write -f {self._mount}/keys/{known.name}/rotate"
            ) from None
        except VaultFault as fault:
            raise _told(fault, known.name) from None
        known.look_at = 0.0

    def _of(self, known: _Known) -> TransitKey:
        """The key without what was withdrawn. Raises `SignerUnavailable`."""
        if known.key is None:
            raise SignerUnavailable(f"transit key {known.name} is not known")
        left = tuple(one for one in known.key.versions if one.key.jkt not in self._withdrawn)
        if not left:
            raise SignerUnavailable(f"the versions of transit key {known.name} were revoked; rotate it")
        return TransitKey(left)

    def _signing(self, known: _Known) -> Version:
        return self._of(known).signing(
            now=self._clock.now(), seen=known.seen, monotonic=time.monotonic(), settle_s=self._settle_s
        )

    async def _signed(self, known: _Known, version: Version, data: bytes) -> Signature:
        """One signature by this version, verified. Raises `SignerUnavailable`, `VaultFault`."""
        body = {
            "input": base64.b64encode(data).decode("ascii"),
            "key_version": version.number,
            "hash_algorithm": "sha2-256",
            "marshaling_algorithm": "jws",
        }
        answer = data_of(
            await self._vault.request("POST", f"{self._mount}/sign/{known.name}", body, deadline_s=DEADLINE_S)
        )
        value = _checked(version, data, str(answer.get("signature")))
        if value is None:
            raise SignerUnavailable(f"what Vault gave is no signature of transit key {known.name}; nothing was signed")
        return Signature(version.key.jkt, version.key.alg, value)

    async def _current(self, purpose: str) -> _Known:
        """What is known of the purpose's key, read again when it is time. Raises `SignerUnavailable`."""
        known = self._known.get(purpose)
        if known is None:
            raise SignerUnavailable(f"there is no key to sign {purpose} with")
        if known.key is not None and (time.monotonic() < known.look_at or known.lock.locked()):
            return known
        async with known.lock:
            if time.monotonic() >= known.look_at:
                await self._look(purpose, known)
        if known.key is None:
            why = known.why_not
            raise SignerUnavailable(why.detail if why else "transit key", retry_after_ms=int(RETRY_S * 1000))
        return known

    async def _look(self, purpose: str, known: _Known) -> None:
        """Read the key. A failure is remembered for a moment, so that not everybody waits for the next one."""
        try:
            answer = await self._vault.request("GET", f"{self._mount}/keys/{known.name}", deadline_s=DEADLINE_S)
            key = read_key(known.name, ALGORITHMS[purpose], data_of(answer))
        except VaultFault as fault:
            known.why_not, known.look_at = _told(fault, known.name), time.monotonic() + RETRY_S
            return
        except SignerUnavailable as wrong:
            # It is there, and is not what may sign: what was known before does not count any more.
            known.key, known.why_not, known.look_at = None, wrong, time.monotonic() + RETRY_S
            return
        now = time.monotonic()
        known.seen = {version.number: known.seen.get(version.number, now) for version in key.versions}
        known.key, known.why_not, known.look_at = key, None, now + self._refresh_s

    def __repr__(self) -> str:
        """Names of keys only."""
        return f"TransitSigner({self._mount}, {', '.join(known.name for known in self._known.values())})"

    def __reduce__(self) -> NoReturn:
        """It holds a session with Vault."""
        raise TypeError("a signer can be neither pickled nor copied")


def _checked(version: Version, data: bytes, text: str) -> bytes | None:
    """The signature in Vault's text, if it is one of this data by this version."""
    found = _SIGNATURE.fullmatch(text)
    if found is None or int(found["version"]) != version.number:
        return None
    try:
        value = canonical.b64u_decode(found["value"])
        version.key.verify(data, value)
    except (JoseError, canonical.CanonicalError):
        return None
    return value


def _told(fault: VaultFault, name: str) -> SignerUnavailable:
    if isinstance(fault, VaultMissing):
        return SignerUnavailable(f"Vault has no transit key {name}; `stepgrant vault setup` makes it")
    return signer_fault(fault)
