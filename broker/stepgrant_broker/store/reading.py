"""`Reads` and `SecretSource`: everything that is only looked at, each call one plan in one consistent view."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from stepgrant_broker.store import keys, listing, log, looking, rows, scanning, standings
from stepgrant_broker.store.asking import Look, ask, every, one
from stepgrant_broker.store.statements import Text

if TYPE_CHECKING:
    from stepgrant_broker.domain.commitments import Payload
    from stepgrant_broker.domain.keys import SigningKey
    from stepgrant_broker.domain.log import SignedHead, Tail
    from stepgrant_broker.domain.ports import SecretRecord
    from stepgrant_broker.domain.reads import Backlog, Due, Listed, Page, StoredEntry
    from stepgrant_broker.domain.scanning import DerivedPage, RawEntry, Stray
    from stepgrant_broker.domain.standing import Standing
    from stepgrant_broker.domain.state import Approval, Epoch, Grant, Run, Step
    from stepgrant_broker.domain.writes import ChainKey, Operator, PolicyText, Quarantine, Tenant, Workload
    from stepgrant_broker.store.keys import KeyStatements
    from stepgrant_broker.store.log import LogStatements
    from stepgrant_broker.store.queries import Queries
    from stepgrant_broker.store.sealing import Clear

T = TypeVar("T")


class Reading(ABC):
    """The reading half of a store. All raise `StoreUnavailable`; pages raise `InvalidRequest` for a bad cursor."""

    _sql: Queries
    _log: LogStatements
    _seal: Clear
    _keys: KeyStatements

    @abstractmethod
    async def _run(self, look: Look[T]) -> T:
        """What the plan returns."""

    @abstractmethod
    def _time(self) -> int | None:
        """The time that plans are given; `None` where the database has the clock."""

    @abstractmethod
    async def now(self) -> int:
        """The store's clock, in milliseconds."""

    async def _one(self, codec: rows.Codec[T], text: Text, **binds: object) -> T | None:
        return await self._run(lambda: one(codec, ask(text, **binds)))

    async def _all(self, codec: rows.Codec[T], text: Text, **binds: object) -> tuple[T, ...]:
        return await self._run(lambda: every(codec, ask(text, **binds)))

    async def runs(
        self,
        tenant: str,
        page: Page,
        *,
        workload: str | None = None,
        agent: str | None = None,
        state: str | None = None,
    ) -> Listed[tuple[Run, int]]:
        """Runs with the end of their lease, newest first."""
        filters = {"workload": workload, "agent": agent, "state": state}
        return await self._run(lambda: listing.runs(self._sql, tenant, page, filters))

    async def standings(
        self,
        tenant: str,
        page: Page,
        *,
        run: str | None = None,
        workload: str | None = None,
        agent: str | None = None,
        state: str | None = None,
        resumable: bool = False,
    ) -> Listed[Standing]:
        """Runs as they stand, newest first; `resumable`: only those that are, oldest first."""
        filters = {"id": run, "workload": workload, "agent": agent, "state": state}
        now = self._time()
        return await self._run(
            lambda: standings.standings(self._sql, tenant, page, filters, resumable=resumable, now=now)
        )

    async def steps(self, tenant: str, run: str, page: Page) -> Listed[Step]:
        """Steps of a run in the order of their position."""
        return await self._run(lambda: listing.steps(self._sql, tenant, page, {"run": run}))

    async def grants(self, tenant: str, page: Page, *, run: str | None = None, live: bool = False) -> Listed[Grant]:
        """Grants, newest first; `live`: only those that are issued and not expired."""
        now = self._time()
        return await self._run(lambda: listing.grants(self._sql, tenant, page, {"run": run}, live=live, now=now))

    async def approvals(
        self, tenant: str, page: Page, *, run: str | None = None, status: str | None = None
    ) -> Listed[Approval]:
        """Approvals, newest first."""
        return await self._run(lambda: listing.approvals(self._sql, tenant, page, {"run": run, "status": status}))

    async def entries(
        self, tenant: str, run: str | None, *, after: int = -1, limit: int = 500
    ) -> tuple[StoredEntry, ...]:
        """Entries of a chain with `seq` above `after`, in order; `run=None` is the tenant's own chain."""
        return await self._run(lambda: looking.entries(self._sql, tenant, run or "", after, limit))

    async def payloads(self, tenant: str, run: str, commitments: Sequence[str]) -> Mapping[str, Payload]:
        """Payloads of a chain (`run` empty: the tenant's own), by commitment; missing ones are left out."""
        return await self._run(lambda: looking.payloads(self._sql, self._seal, tenant, run, commitments))

    async def chain_key(self, tenant: str, run: str) -> ChainKey | None:
        """The wrapped key of a chain."""
        return await self._one(rows.CHAIN_KEY, self._sql.chain_key, tenant=tenant, run=run)

    async def tenants(self) -> tuple[Tenant, ...]:
        """All tenants."""
        return await self._all(rows.TENANT, self._sql.tenants)

    async def workload(self, workload: str) -> Workload | None:
        """An enrolment by its id, whatever its tenant; removed ones too."""
        return await self._one(rows.WORKLOAD, self._sql.workload, id=workload)

    async def workloads(self, tenant: str) -> tuple[Workload, ...]:
        """All enrolments of a tenant, oldest first; removed ones too."""
        return await self._all(rows.WORKLOAD, self._sql.workloads, tenant=tenant)

    async def audiences(self, tenant: str) -> frozenset[str]:
        """The audiences that living enrolments of the tenant serve."""
        servers = await self._all(rows.WORKLOAD, self._sql.servers, tenant=tenant)
        return frozenset(audience for server in servers for audience in server.audiences)

    async def operator_by_token(self, token_hash: str) -> tuple[Operator, str] | None:
        """The person with this token hash, and the name; nobody if removed or nameless."""
        return await self._run(lambda: looking.operator_by_token(self._sql, self._seal, token_hash))

    async def operators(self, tenant: str) -> tuple[tuple[Operator, str], ...]:
        """All people of a tenant with names, oldest first; removed ones too."""
        return await self._run(lambda: looking.operators(self._sql, self._seal, tenant))

    async def quarantines(self, tenant: str) -> tuple[Quarantine, ...]:
        """Kill switches that hold now."""
        return await self._all(rows.QUARANTINE, self._sql.quarantines, tenant=tenant, now=self._time())

    async def policy(self, tenant: str, revision: str) -> PolicyText | None:
        """An activated revision with its text."""
        return await self._one(rows.POLICY, self._sql.policy, tenant=tenant, revision=revision)

    async def policies(self, tenant: str) -> tuple[PolicyText, ...]:
        """All activated revisions, newest first, with empty `text`."""
        return await self._run(lambda: looking.policies(self._sql, tenant))

    async def secrets(self, tenant: str) -> tuple[SecretRecord, ...]:
        """Static secrets that are set and not removed, still wrapped, by name."""
        return await self._all(rows.SECRET, self._sql.secrets, tenant=tenant)

    async def secret(self, tenant: str, name: str) -> SecretRecord | None:
        """The named secret of the tenant, or `None`; a removed one is gone."""
        return await self._one(rows.SECRET, self._sql.secret, tenant=tenant, name=name)

    async def lapsed(self, now: int, limit: int) -> tuple[tuple[str, str], ...]:
        """Open runs whose lease has lapsed, as (tenant, run), the longest lapsed first."""
        return await self._run(lambda: looking.lapsed(self._sql, now, limit))

    async def leases_due(self, now: int, limit: int, after: Due | None = None) -> tuple[Due, ...]:
        """Grants whose credential outside has to be taken back, behind this one, the longest due first."""
        return await self._run(lambda: looking.leases_due(self._sql, now, limit, after))

    async def leases_left(self, now: int) -> tuple[int, int | None]:
        """How many of them there are, and since when the oldest is due (ms; `None`: there is none)."""
        return await self._run(lambda: looking.leases_left(self._sql, now))

    async def backlog(self, now: int) -> Backlog:
        """What waits, over all tenants."""
        return await self._run(lambda: looking.backlog(self._sql, now))

    async def erasable(self, state: str, before: int, limit: int) -> tuple[tuple[str, str], ...]:
        """Runs that ended in this state by this time and can be erased, as (tenant, run), the longest ended first."""
        return await self._run(lambda: looking.erasable(self._sql, state, before, limit))

    async def log_tail(self, limit: int) -> Tail:
        """The end of the tree, and up to `limit` leaves that wait."""
        return await self._run(lambda: log.tail(self._log, limit))

    async def log_tiles(self, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Tiles by (level, number), as wide as they are now; missing ones are left out."""
        return await self._run(lambda: log.tiles_at(self._log, wanted)) if wanted else {}

    async def log_leaves(self, first: int, count: int) -> tuple[bytes, ...]:
        """The leaves (hashes of entries) from this index on; fewer at the end."""
        return await self._run(lambda: log.leaves_from(self._log, first, count))

    async def log_published(self, size: int | None = None) -> SignedHead | None:
        """The newest signed head, or that of this very size."""
        return await self._run(lambda: log.published(self._log, size))

    async def log_published_after(self, size: int, limit: int) -> tuple[SignedHead, ...]:
        """Signed heads above this size, smallest first."""
        return await self._run(lambda: log.heads(self._log.published_after, size, limit))

    async def log_published_before(self, size: int, limit: int) -> tuple[SignedHead, ...]:
        """Signed heads below this size, largest first."""
        return await self._run(lambda: log.heads(self._log.published_before, size, limit))

    async def signing_keys(self) -> tuple[SigningKey, ...]:
        """All registered signing keys, by purpose and number."""
        return await self._run(lambda: keys.registered(self._keys))

    async def key_entries(self, tenant: str) -> tuple[bytes, ...]:
        """The bytes of the entries about keys in this tenant's own chain, in order."""
        return await self._run(lambda: keys.entries(self._keys, tenant))

    async def held(
        self, tenant: str, *, agent: str | None, workload: str | None, issuer: str | None
    ) -> tuple[str, ...]:
        """Runs that are not ended, of this agent, held by this workload, or with open grants of this issuer."""
        return await self._run(lambda: looking.held(self._sql, tenant, agent, workload, issuer))

    async def had_runs(self, tenant: str, agent: str) -> bool:
        """Whether there is any run of this agent, also one that is over."""
        return await self._run(lambda: looking.had_runs(self._sql, tenant, agent))

    async def run_row(self, tenant: str, run: str) -> tuple[Run | None, tuple[Epoch, ...]]:
        """A run's row and its epochs."""
        return await self._run(lambda: scanning.run_row(self._sql, tenant, run))

    async def people(self, tenant: str) -> tuple[Operator, ...]:
        """All people of a tenant, without their names; removed ones too."""
        return await self._run(lambda: scanning.people(self._sql, tenant))

    async def leaves_between(self, first: int, end: int) -> tuple[RawEntry, ...]:
        """Entries whose leaf index is in this range, by index; more than one for an index, if somebody made it so."""
        return await self._run(lambda: scanning.leaves_between(self._sql, first, end))

    async def leaves_outside(self, size: int) -> tuple[RawEntry, ...]:
        """Entries whose leaf index neither this tree has nor the one of now, a few of them."""
        return await self._run(lambda: scanning.leaves_outside(self._sql, self._log, size))

    async def entries_waiting(self, after: RawEntry | None, limit: int) -> tuple[RawEntry, ...]:
        """Entries without a leaf index, behind this one."""
        return await self._run(lambda: scanning.entries_waiting(self._sql, after, limit))

    async def strays(self) -> tuple[Stray, ...]:
        """Rows of tenants or runs that have no row, a few of each table."""
        return await self._run(lambda: scanning.strays(self._sql))

    async def misderived(self, table: str, after: tuple[str, ...] | None, limit: int) -> DerivedPage:
        """Rows of `steps` or `grants` whose derived columns are not what the others give."""
        return await self._run(lambda: scanning.misderived(self._sql, table, after, limit))
