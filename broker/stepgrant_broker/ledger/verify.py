"""`stepgrant ledger verify`: read every chain, fold it, and compare what it says with every table.

Rules:
* Streaming: entries come by pages, and no more than one run is in memory at a time.
* A chain that does not hold is not folded; its tables are then not compared, for nothing could be said of them.
* With the local key, values behind commitments are checked too: a result or an argument that was changed at rest would
  otherwise be replayed, or shown to whoever approves.
* What this cannot find: a whole chain rewritten together with its tables by somebody with the broker's own power. Who
  keeps an earlier receipt finds that (`stepgrant.receipt.Verified.continues`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stepgrant import canonical
from stepgrant._receipt_entries import commitments
from stepgrant_broker.domain import aad, fold
from stepgrant_broker.domain.commitments import opening
from stepgrant_broker.domain.errors import StepgrantFault, StoreUnavailable
from stepgrant_broker.domain.state import View
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.ledger.chain import UNFOLDABLE, Broken, unfoldable, walk
from stepgrant_broker.ledger.compare import everything, run_tables, tenant_tables
from stepgrant_broker.ledger.findings import Finding, Progress
from stepgrant_broker.ledger.tenant_fold import TenantView

if TYPE_CHECKING:
    from stepgrant._receipt_entries import Event
    from stepgrant_broker.domain.commitments import Payload
    from stepgrant_broker.domain.ports import KeyWrap, Store
    from stepgrant_broker.domain.reads import Reads

TRIES: Final = 5
BATCH: Final = 500


def _nobody(progress: Progress) -> None:
    """Nobody watches."""


@dataclass(slots=True)
class LedgerCheck:
    """What a check works with.

    Without `wrap`, values behind commitments are not checked; without `digest_of` (`policy.bundle.digest_of`), policy
    texts are not compared with their revisions. `watch` is told after each run.
    """

    store: Store
    reads: Reads
    wrap: KeyWrap | None = None
    digest_of: Callable[[Mapping[str, str]], str] | None = None
    watch: Callable[[Progress], None] = _nobody
    progress: Progress = field(default_factory=Progress)

    async def findings(self) -> AsyncIterator[Finding]:
        """Everything that is wrong, as it is found; nothing when all holds."""
        for tenant in await self.reads.tenants():
            for part in (self._tenant, self._runs):
                try:
                    async for finding in part(tenant.id):
                        yield finding
                except StoreUnavailable as fault:
                    yield Finding("unreadable", tenant.id, None, fault.detail)
            self.progress.tenants += 1
            self.watch(self.progress)

    async def _runs(self, tenant: str) -> AsyncIterator[Finding]:
        async for run, _ in everything(lambda page: self.reads.runs(tenant, page)):
            for finding in await self._run(tenant, run.id):
                yield finding
            self.progress.runs += 1
            self.watch(self.progress)

    async def _tenant(self, tenant: str) -> AsyncIterator[Finding]:
        before = (await self.store.load(Query(tenant))).tenant
        view, opener = TenantView(), await self._opener(tenant, None)
        try:
            async for entry, event in walk(self.reads, tenant, None, stop=before.seq):
                try:
                    view.apply(entry, event)
                except UNFOLDABLE as error:
                    raise unfoldable(entry, error) from None
                self.progress.entries += 1
                for finding in await opener.add(event):
                    yield finding
        except Broken as broken:
            yield broken.finding
            return
        for finding in [*await opener.flush(), *await tenant_tables(self.reads, view, before, self.digest_of)]:
            yield finding

    async def _run(self, tenant: str, run: str) -> list[Finding]:
        try:
            for _ in range(TRIES):
                before = await self._stored(tenant, run)
                length = before.run.seq if before.run is not None else 0
                found = await self._read_run(tenant, run, before, length)
                after = await self._stored(tenant, run)
                if after.run is None or after.run.seq == length:
                    return found
        except StoreUnavailable as fault:
            return [Finding("unreadable", tenant, run, fault.detail)]
        return [Finding("not_checked", tenant, run, "it changed each time it was read; check again")]

    async def _stored(self, tenant: str, run: str) -> View:
        return (await self.store.load(Query(tenant, run=run, unfinished=True))).view

    async def _read_run(self, tenant: str, run: str, stored: View, length: int) -> list[Finding]:
        view, opener, found, count = View(), await self._opener(tenant, run), list[Finding](), 0
        try:
            # One entry more than the row speaks of: what was written beside the row would be there.
            async for entry, event in walk(self.reads, tenant, run, stop=length + 1):
                try:
                    view = fold.apply(view, entry)
                except UNFOLDABLE as error:
                    raise unfoldable(entry, error) from None
                found.extend(await opener.add(event))
                count += 1
        except Broken as broken:
            return [*found, broken.finding]
        self.progress.entries += count
        found.extend(await opener.flush())
        if view.run is None:
            return [*found, Finding("row_orphan", tenant, run, f"runs {run}: no entry made this row")]
        return [*found, *await run_tables(self.reads, view, stored, tenant, run)]

    async def _opener(self, tenant: str, run: str | None) -> Opener:
        return await Opener.of(self.reads, self.wrap, tenant, run, self.progress)


@dataclass(slots=True)
class Opener:
    """Checks stored payloads against the commitments of one chain, a batch at a time."""

    reads: Reads
    tenant: str
    run: str | None
    progress: Progress
    key: bytes | None = None
    problem: Finding | None = None
    waiting: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @classmethod
    async def of(cls, reads: Reads, wrap: KeyWrap | None, tenant: str, run: str | None, progress: Progress) -> Opener:
        """An opener with the chain's key, or with the finding why there is none."""
        opener = cls(reads, tenant, run, progress)
        if wrap is None:
            return opener
        kept = await reads.chain_key(tenant, run or "")
        if kept is None:
            opener.problem = Finding("key_missing", tenant, run, "its key is gone; was it erased?")
            return opener
        try:
            opener.key = wrap.unwrap(kept.wrapped, aad.chain_key(tenant, run or ""))
        except StepgrantFault:
            opener.problem = Finding("key_unusable", tenant, run, "its key does not unwrap with this broker's key")
        return opener

    async def add(self, event: Event) -> list[Finding]:
        """Note an entry's commitments; findings come with full batches."""
        if self.key is not None:
            for _, c in commitments(event):
                if c not in self.seen:
                    self.seen.add(c)
                    self.waiting[c] = event.seq
        return await self.flush() if len(self.waiting) >= BATCH else []

    async def flush(self) -> list[Finding]:
        """Check what is waiting."""
        found = [self.problem] if self.problem is not None else []
        self.problem = None
        if not self.waiting:
            return found
        payloads = await self.reads.payloads(self.tenant, self.run or "", tuple(self.waiting))
        for c, payload in payloads.items():
            self.progress.payloads += 1
            if not self._opens(c, payload):
                what = f"the stored {payload.field} is not what this entry commits to"
                found.append(Finding("payload_changed", self.tenant, self.run, what, self.waiting[c]))
        self.waiting.clear()
        return found

    def _opens(self, c: str, payload: Payload) -> bool:
        value = payload.value()
        r = opening(self.key or b"", payload.field, value)
        return canonical.b64u(hmac.digest(r, value, hashlib.sha256)) == c
