"""`stepgrant ledger verify`: read every chain, fold it, compare what it says with every table, and rebuild the log.

Rules:
* Streaming: entries come by pages, and no more than a few runs are in memory at a time.
* A chain that does not hold is not folded; its tables are then not compared, for nothing could be said of them.
* With the wrap key, values behind commitments are checked too: a result or an argument that was changed at rest would
  otherwise be replayed, or shown to whoever approves.
* One change is told once: what the tree says of an entry that its chain has told already is left out.
* What this cannot find: a store that was put back to an earlier state of itself, or that was rewritten whole by
  somebody with the broker's own keys, unless a head that was kept elsewhere is shown (`check_log`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from stepgrant import tlog
from stepgrant_broker.domain import fold
from stepgrant_broker.domain.errors import PayloadDamaged, SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.keys import KeyStore
from stepgrant_broker.domain.ports import Store
from stepgrant_broker.domain.scanning import Scans
from stepgrant_broker.domain.state import View
from stepgrant_broker.domain.writes import Query, Tenant
from stepgrant_broker.ledger import findings as places
from stepgrant_broker.ledger.chain import UNFOLDABLE, Broken, unfoldable, walk
from stepgrant_broker.ledger.check_heads import Heads, LogKey, keys_of
from stepgrant_broker.ledger.check_keys import REGISTRY, registry, revoked_keys
from stepgrant_broker.ledger.check_log import LogCheck
from stepgrant_broker.ledger.check_values import Opener, changed
from stepgrant_broker.ledger.compare import everything, run_tables, tenant_tables
from stepgrant_broker.ledger.findings import TREE, Code, Finding, Place, Progress
from stepgrant_broker.ledger.tenant_fold import TenantView

if TYPE_CHECKING:
    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.domain.log import LogStore
    from stepgrant_broker.domain.ports import KeyWrap, SigningKeys
    from stepgrant_broker.domain.reads import Reads
    from stepgrant_broker.ledger.check_heads import KeptHead
    from stepgrant_broker.ledger.readers import LogReader
    from stepgrant_broker.ledger.tenant_fold import Restored

TRIES: Final = 5
RESTLESS: Final = "it changed each time it was read; check again"
AT_ONCE: Final = 4
DERIVED: Final = ("grants", "steps")
DERIVED_PAGE: Final = 1000
REMEMBERED: Final = {"entries", "payloads", "steps", "grants"}
TOLD: Final = 10_000
"""So many rows of these tables are remembered as told."""


def _nobody(progress: Progress) -> None:
    """Nobody watches."""


class Checked(Store, Scans, KeyStore, Protocol):
    """What a store has to answer."""


@dataclass(frozen=True, slots=True)
class TheLog:
    """The log as a check sees it: where its rows rest, how anybody reads it, and what others kept of it.

    `policy`: the witnesses whose cosignatures count. `trusted`: the log's keys, of whoever brings them along; otherwise
    those that the log itself publishes are believed.
    """

    store: LogStore
    reader: LogReader
    policy: LogPolicy | None = None
    trusted: Sequence[tlog.NoteKey] = ()
    known: Sequence[KeptHead] = ()


@dataclass(slots=True)
class LedgerCheck:
    """What a check works with.

    Without `wrap`, values behind commitments are not checked; without `digest_of` (`policy.bundle.digest_of`), policy
    texts are not compared with their revisions; without `log`, the tree is not rebuilt; without `signer`, nobody is
    asked for the first keys, which no entry tells of. `watch` is told after each run and each tile.
    """

    store: Checked
    reads: Reads
    wrap: KeyWrap | None = None
    digest_of: Callable[[Mapping[str, str]], str] | None = None
    watch: Callable[[Progress], None] = _nobody
    log: TheLog | None = None
    signer: SigningKeys | None = None
    progress: Progress = field(default_factory=Progress)
    _told: set[Place] = field(default_factory=set)
    _restored: list[Restored] = field(default_factory=list)

    async def findings(self) -> AsyncIterator[Finding]:
        """Everything that is wrong, as it is found; nothing when all holds."""
        tenants: Sequence[Tenant] = ()
        try:
            tenants = await self.reads.tenants()
        except StoreUnavailable as fault:
            yield Finding(Code.UNREADABLE, places.row("tenants"), fault.detail)
        for tenant in tenants:
            for part in (self._tenant, self._runs):
                try:
                    async for finding in part(tenant.id):
                        yield self._first(finding)
                except (StoreUnavailable, *UNFOLDABLE) as fault:
                    yield _unreadable(tenant.id, None, fault)
            self.progress.tenants += 1
            self.watch(self.progress)
        for beside, at in ((self._beside, TREE), (self._of_keys, REGISTRY), (self._of_log, TREE)):
            try:
                async for finding in beside():
                    if finding.at not in self._told:
                        yield self._first(finding)
            except (StoreUnavailable, SignerUnavailable, *UNFOLDABLE) as fault:
                yield Finding(Code.UNREADABLE, at, _why(fault))

    def _first(self, finding: Finding) -> Finding:
        if finding.at.table in REMEMBERED and len(self._told) < TOLD:
            self._told.add(finding.at)
        return finding

    async def _beside(self) -> AsyncIterator[Finding]:
        """Rows that no chain would ask for, and columns that are computed from others."""
        for stray in await self.store.strays():
            yield Finding(Code.ROW_ORPHAN, Place(stray.table, stray.key), "there is no tenant or run that it is of")
        for table in DERIVED:
            after: tuple[str, ...] | None = None
            while True:
                page = await self.store.misderived(table, after, DERIVED_PAGE)
                for stray in page.wrong:
                    what = f"{', '.join(stray.columns)} is not what the other columns give"
                    yield Finding(Code.ROW_DIFFERS, Place(stray.table, stray.key), what)
                after = page.next
                if after is None:
                    break

    async def _of_keys(self) -> AsyncIterator[Finding]:
        """The registry of signing keys against what all tenants' chains say of it."""
        tenants = [tenant.id for tenant in await self.reads.tenants()]
        for finding in await registry(self.store, tenants, self.signer):
            yield finding

    async def _of_log(self) -> AsyncIterator[Finding]:
        log = self.log
        if log is None:
            return
        try:
            own = log.trusted or [tlog.read_vkey(line) for line in await log.reader.vkeys()]
        except tlog.LogPolicyInvalid as error:
            yield Finding(Code.UNREADABLE, TREE, f"what the log shows as its keys: {error}")
            return
        registered = await self.store.signing_keys()
        good = [*map(LogKey, own), *([] if log.trusted else revoked_keys(registered, {key.name for key in own}))]
        heads = Heads(keys_of(good, self._restored), log.policy, self.progress)
        check = LogCheck(log.store, self.store, log.reader, heads, self.progress, self.watch, self.reads.now, log.known)
        async for finding in check.findings():
            yield finding

    async def _runs(self, tenant: str) -> AsyncIterator[Finding]:
        """All runs, a few at a time: while one waits for the store, another is folded."""
        some: list[str] = []
        async for run, _ in everything(lambda page: self.reads.runs(tenant, page)):
            some.append(run.id)
            if len(some) == AT_ONCE:
                for finding in await self._several(tenant, some):
                    yield finding
                some = []
        for finding in await self._several(tenant, some):
            yield finding

    async def _several(self, tenant: str, runs: Sequence[str]) -> list[Finding]:
        found = await asyncio.gather(*(self._run(tenant, run) for run in runs))
        self.progress.runs += len(runs)
        self.watch(self.progress)
        return [finding for of_run in found for finding in of_run]

    async def _tenant(self, tenant: str) -> AsyncIterator[Finding]:
        """A tenant's own chain and tables; again while people change them."""
        for _ in range(TRIES):
            stands, view = (await self.store.load(Query(tenant))).tenant, TenantView()
            found = await self._read_tenant(view, stands)
            if not found or (await self.store.load(Query(tenant))).tenant.seq == stands.seq:
                self.progress.entries += view.seq
                self._restored += view.restored
                break
        else:
            found = [Finding(Code.NOT_CHECKED, places.chain(tenant, None), RESTLESS)]
        for finding in found:
            yield finding

    async def _read_tenant(self, view: TenantView, stands: Tenant) -> list[Finding]:
        tenant, found = stands.id, list[Finding]()
        opener, order = await self._opener(tenant, None), _Order(self.reads, tenant, None)
        try:
            async for entry, event, leaf in walk(self.reads, tenant, None, stop=stands.seq):
                try:
                    view.apply(entry, event)
                except UNFOLDABLE as error:
                    raise unfoldable(entry, error) from None
                found.extend([*await opener.add(event), *await order.add(entry.seq, leaf)])
            compared = await tenant_tables(self.reads, self.store, view, stands, self.digest_of)
            return [*found, *await opener.finish(), *compared]
        except Broken as broken:
            view.restored.clear()
            return [*found, broken.finding]
        except (StoreUnavailable, *UNFOLDABLE) as fault:
            return [*found, _unreadable(tenant, None, fault)]

    async def _run(self, tenant: str, run: str) -> list[Finding]:
        try:
            for _ in range(TRIES):
                before = await self._stored(tenant, run)
                length = before.run.seq if before.run is not None else 0
                found = await self._read_run(tenant, run, before, length)
                after = await self._stored(tenant, run)
                if after.run is None or after.run.seq == length:
                    return found
        except (StoreUnavailable, *UNFOLDABLE) as fault:
            return [_unreadable(tenant, run, fault)]
        return [Finding(Code.NOT_CHECKED, places.chain(tenant, run), RESTLESS)]

    async def _stored(self, tenant: str, run: str) -> View:
        row, epochs = await self.store.run_row(tenant, run)
        return View(row, epochs={one.epoch: one for one in epochs})

    async def _read_run(self, tenant: str, run: str, stored: View, length: int) -> list[Finding]:
        view, opener, found, count = View(), await self._opener(tenant, run), list[Finding](), 0
        order = _Order(self.reads, tenant, run)
        try:
            # One entry more than the row speaks of: what was written beside the row would be there.
            async for entry, event, leaf in walk(self.reads, tenant, run, stop=length + 1):
                try:
                    view = fold.apply(view, entry)
                except UNFOLDABLE as error:
                    raise unfoldable(entry, error) from None
                found.extend([*await opener.add(event), *await order.add(entry.seq, leaf)])
                count += 1
        except Broken as broken:
            return [*found, broken.finding]
        self.progress.entries += count
        found.extend(await opener.finish(view.grants.values()))
        if view.run is None:
            return [*found, Finding(Code.ROW_ORPHAN, places.chain(tenant, run), "no entry made this row")]
        return [*found, *await run_tables(self.reads, view, stored, tenant, run)]

    async def _opener(self, tenant: str, run: str | None) -> Opener:
        return await Opener.of(self.reads, self.wrap, tenant, run, self.progress)


def _unreadable(tenant: str, run: str | None, fault: Exception) -> Finding:
    """Why a chain's rows could not be read."""
    if isinstance(fault, PayloadDamaged):
        return changed(tenant, run, fault.c, fault.payload)
    return Finding(Code.UNREADABLE, places.chain(tenant, run), _why(fault))


def _why(fault: Exception) -> str:
    """What the store says; or that a column holds what its type does not allow, as SQLite lets it."""
    if isinstance(fault, StoreUnavailable | SignerUnavailable):
        return fault.detail
    return f"what stands in it is of a wrong type ({type(fault).__name__})"


@dataclass(slots=True)
class _Order:
    """Within a chain the tree's leaves have the order of the entries, and none waits behind which another stands."""

    reads: Reads
    tenant: str
    run: str | None
    newest: int | None = -1

    async def add(self, seq: int, leaf: int | None) -> list[Finding]:
        """The next entry's leaf index."""
        before, self.newest = self.newest, leaf
        if leaf is None or (before is not None and leaf > before) or (before is None and await self._came(seq)):
            return []
        what = f"its leaf {leaf} does not stand behind that of the entry before it"
        return [Finding(Code.LEAF_ORDER, places.entry(self.tenant, self.run, seq), what, seq)]

    async def _came(self, seq: int) -> bool:
        """Whether the entry before has its place by now: the sequencer came between two pages of a chain."""
        pair = await self.reads.entries(self.tenant, self.run, after=seq - 2, limit=2)
        match [one.leaf_index for one in pair]:
            case [int(first), int(second)]:
                return first < second
            case _:
                return False
