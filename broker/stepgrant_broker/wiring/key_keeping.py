"""Signing keys while a broker runs: new ones are registered and entered, revoked ones withdrawn, ended ones destroyed.

Rules:
* Each replica looks every second: at the folder, which costs a list of its files, and at the registry, one small read.
  So a key that was revoked anywhere signs nothing here a second later, and its tokens are refused.
* A key settles before it signs (`signing/publishing.py`), so that nothing fails while keys change.
* Whoever revokes the newest key makes another one first, which signs at once: nothing older takes over again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.domain.errors import Conflict, NotFound, SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.keys import PURPOSES
from stepgrant_broker.ledger.check_keys import registry
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.publishing import HEADS
from stepgrant_broker.usecases.keys import enter, named, register, revoke
from stepgrant_broker.usecases.tenant_call import LOCAL
from stepgrant_broker.wiring.rounds import Rounds

if TYPE_CHECKING:
    from stepgrant_broker.api.metrics import Metrics
    from stepgrant_broker.domain.journal import By
    from stepgrant_broker.domain.keys import KeyEpoch, SigningKey
    from stepgrant_broker.signing.transit import TransitSigner
    from stepgrant_broker.usecases.context import Ports
    from stepgrant_broker.wiring.databases import AnyStore

EVERY_MS: Final = 1_000

_log = structlog.get_logger(__name__)


class KeyKeeping(Rounds):
    """Keeps the signer, the registry and the tenants' chains together, every `every_ms`."""

    def __init__(
        self,
        ports: Ports,
        store: AnyStore,
        signer: LocalSigner | TransitSigner,
        metrics: Metrics,
        every_ms: int = EVERY_MS,
    ) -> None:
        super().__init__("keys", every_ms)
        self._ports = ports
        self._store = store
        self.signer = signer
        self._metrics = metrics
        self._entered: tuple[SigningKey, ...] | None = None

    async def load(self) -> None:
        """Withdraw what was revoked, before anything is signed. Raises `StoreUnavailable`."""
        self._withdraw(await self._store.signing_keys())

    async def begin(self) -> None:
        """The first round, before anybody is served, and then the others.

        Keys in a Vault that is away are registered later: what they sign counts all the same.
        """
        try:
            await self.round()
        except SignerUnavailable as away:
            if isinstance(self.signer, LocalSigner):
                raise
            _log.warning("keys_not_registered", why=away.detail)
        self.start()

    async def round(self) -> int:
        """One round; how many entries it made. Raises `SignerUnavailable`, and what the store raises."""
        return await self._round(BROKER, {})

    def count_failure(self, kind: str) -> None:
        """As `Rounds`."""
        self._metrics.store_error(kind)

    async def rotate(self, purpose: str) -> SigningKey:
        """Make a newer key, registered and entered everywhere; it signs once it has settled.

        Raises `NotFound` for a purpose that is none, `Conflict` while the last one is settling, `SignerUnavailable`.
        """
        if purpose not in PURPOSES:
            raise NotFound(f"keys sign {', '.join(PURPOSES)}", field="purpose")
        newest, *older = await self.signer.epochs(purpose)
        now = await self._ports.reads.now()
        if older and newest.signs and now < newest.signs_from:
            wait_s = (newest.signs_from - now + 999) // 1000
            raise Conflict(f"the newest key of {purpose} is settling and signs in {wait_s} s; rotate again after that")
        before = {one.key.kid for one in (newest, *older)}
        await self._make(purpose, at_once=False)
        await self._round(LOCAL, {})
        made = next(one for one in await self.signer.epochs(purpose) if one.key.kid not in before)
        return named(await self._store.signing_keys(), made.key.kid)

    async def revoke(self, kid: str, note: str | None = None) -> SigningKey:
        """Revoke a key, which signs and is published no longer; the newest one is replaced first, at once.

        Doing it again finishes what was left. Raises `NotFound`, `SignerUnavailable` (nothing was revoked).
        """
        await self._round(LOCAL, {})
        found = named(await self._store.signing_keys(), kid)
        epochs = await self.signer.epochs(found.purpose)
        if found.revoked_at is None and _is_newest(epochs, kid):
            await self._make(found.purpose, at_once=True)
            await self._round(LOCAL, {})
            if found.purpose == HEADS:
                # Until every replica signs with the new key too: a head above the size that is recorded now, and by the
                # old key alone, would not count.
                await asyncio.sleep(2 * EVERY_MS / 1000)
        head = await self._store.log_published()
        now = await self._ports.reads.now()
        revoked = await revoke(self._store, kid, now, 0 if head is None else head.size)
        await self._round(LOCAL, {} if note is None else {kid: note})
        return revoked

    async def attested(self) -> tuple[SigningKey, ...]:
        """All registered keys, each one told of by a chain or here with the signer: what may be given to auditors.

        Raises `StoreUnavailable`, naming the row, when somebody wrote into the registry.
        """
        await self._round(LOCAL, {})
        tenants = [tenant.id for tenant in await self._ports.reads.tenants()]
        found = await registry(self._store, tenants, self.signer)
        if found:
            raise StoreUnavailable(
                f"the registry of signing keys was changed ({found[0]}); run `stepgrant ledger verify`"
            )
        return await self._store.signing_keys()

    async def _round(self, by: By, notes: dict[str, str]) -> int:
        registered = await register(self._store, self.signer, await self._ports.reads.now())
        self._withdraw(registered)
        entered = 0
        if registered != self._entered:
            own = await self._own()
            for tenant in await self._ports.reads.tenants():
                entered += await enter(self._ports, self._store, tenant.id, own, by=by, notes=notes)
            self._entered = registered
        if isinstance(self.signer, LocalSigner):
            gone = await asyncio.to_thread(self.signer.destroy_ended)
            if gone:
                _log.info("private_keys_destroyed", kids=list(gone))
        return entered

    async def _own(self) -> set[str]:
        return {epoch.key.kid for purpose in PURPOSES for epoch in await self.signer.epochs(purpose)}

    def _withdraw(self, registered: tuple[SigningKey, ...]) -> None:
        self.signer.withdraw([one.kid for one in registered if one.revoked_at is not None])

    async def _make(self, purpose: str, *, at_once: bool) -> None:
        if isinstance(self.signer, LocalSigner):
            await asyncio.to_thread(self.signer.make, purpose, at_once=at_once)
        else:
            await self.signer.make(purpose)


def _is_newest(epochs: tuple[KeyEpoch, ...], kid: str) -> bool:
    able = [epoch for epoch in epochs if epoch.signs]
    return bool(able) and able[0].key.kid == kid
