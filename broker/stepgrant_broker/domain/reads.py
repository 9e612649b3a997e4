"""The port for everything that is only looked at: lists for people, the ledger for auditors, work for the sweeper.

Rules:
* Every read but those of the sweeper and of identities names the tenant; another tenant's rows do not exist.
* Lists come in pages whose cursors are opaque and bound to tenant and list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.ports import SecretRecord
from stepgrant_broker.domain.standing import Standing
from stepgrant_broker.domain.state import Approval, Grant, Run, Step
from stepgrant_broker.domain.writes import ChainKey, Operator, PolicyText, Quarantine, Tenant, Workload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """A slice of a list: at most `limit` rows after the cursor `after` (opaque; `None` begins)."""

    limit: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """One page of rows, newest first unless said, and the cursor of the next page (`None`: that was all)."""

    rows: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it rests: the exact bytes, and the leaf index once the sequencer gave one."""

    seq: int
    data: bytes
    leaf_index: int | None


@dataclass(frozen=True, slots=True)
class Due:
    """A grant for which something outside has to be taken back, since `due_at` (ms)."""

    tenant: str
    run: str
    jti: str
    issuer: str
    due_at: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, over all tenants; times in ms.

    `entries` have no place in the log yet, the oldest of them since `oldest_at` (`None`: there is none). `parked` runs
    wait for anything; `asked` questions can still be answered.
    """

    entries: int
    oldest_at: int | None
    parked: int
    asked: int


class Reads(Protocol):
    """Everything that is only looked at: lists for people, the ledger for auditors, work for the sweeper."""

    async def now(self) -> int:
        """The store's clock, in milliseconds."""

    async def runs(
        self,
        tenant: str,
        page: Page,
        *,
        workload: str | None = None,
        agent: str | None = None,
        state: str | None = None,
    ) -> Listed[tuple[Run, int]]:
        """Runs with the end of their lease."""

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
        """Runs with what decides whether each is resumable; with `resumable` only those that are, oldest first."""

    async def steps(self, tenant: str, run: str, page: Page) -> Listed[Step]:
        """Steps of a run in the order of their position."""

    async def grants(self, tenant: str, page: Page, *, run: str | None = None, live: bool = False) -> Listed[Grant]:
        """Grants; `live`: only those that are issued and not expired."""

    async def approvals(
        self, tenant: str, page: Page, *, run: str | None = None, status: str | None = None
    ) -> Listed[Approval]:
        """Approvals."""

    async def entries(
        self, tenant: str, run: str | None, *, after: int = -1, limit: int = 500
    ) -> tuple[StoredEntry, ...]:
        """Entries of a chain with `seq` above `after`, in order; `run=None` is the tenant's own chain."""

    async def payloads(self, tenant: str, run: str, commitments: Sequence[str]) -> Mapping[str, Payload]:
        """Payloads of a chain (`run` empty: the tenant's own), by commitment; missing ones are left out."""

    async def chain_key(self, tenant: str, run: str) -> ChainKey | None:
        """The wrapped key of a chain."""

    async def tenants(self) -> tuple[Tenant, ...]:
        """All tenants."""

    async def workload(self, workload: str) -> Workload | None:
        """An enrolment by its id, whatever its tenant (identities name themselves by it)."""

    async def workloads(self, tenant: str) -> tuple[Workload, ...]:
        """All enrolments of a tenant."""

    async def audiences(self, tenant: str) -> frozenset[str]:
        """The audiences that living enrolments of a tenant serve."""

    async def operator_by_token(self, token_hash: str) -> tuple[Operator, str] | None:
        """The person with this token hash, and the name."""

    async def operators(self, tenant: str) -> tuple[tuple[Operator, str], ...]:
        """All people of a tenant, with names."""

    async def quarantines(self, tenant: str) -> tuple[Quarantine, ...]:
        """Kill switches that are thrown."""

    async def policy(self, tenant: str, revision: str) -> PolicyText | None:
        """An activated revision with its text."""

    async def policies(self, tenant: str) -> tuple[PolicyText, ...]:
        """All activated revisions, newest first, with empty `text`."""

    async def secrets(self, tenant: str) -> tuple[SecretRecord, ...]:
        """Static secrets that are set, still wrapped."""

    async def lapsed(self, now: int, limit: int) -> tuple[tuple[str, str], ...]:
        """Open runs whose lease has lapsed, as (tenant, run)."""

    async def leases_due(self, now: int, limit: int, after: Due | None = None) -> tuple[Due, ...]:
        """Grants for which something outside has to be taken back (`domain.grants.due_at`), the longest due first.

        `after`: only those behind this one.
        """

    async def leases_left(self, now: int) -> tuple[int, int | None]:
        """How many of them there are, and since when the oldest is due (ms; `None`: there is none)."""

    async def backlog(self, now: int) -> Backlog:
        """What waits at this time. It counts rows, so it is not for every call or scrape."""

    async def erasable(self, state: str, before: int, limit: int) -> tuple[tuple[str, str], ...]:
        """Runs that ended in this state at this time or before and are not erased, as (tenant, run), oldest first.

        Those with open grants are left out: they cannot be erased yet.
        """

    async def held(
        self, tenant: str, *, agent: str | None, workload: str | None, issuer: str | None
    ) -> tuple[str, ...]:
        """Runs that are not ended, of this agent, held by this workload, or with open grants of this issuer."""

    async def had_runs(self, tenant: str, agent: str) -> bool:
        """Whether there is any run of this agent, also one that is over; at the cost of one row."""

    async def let_rest(self) -> int:
        """Note some of the runs that nobody has to look at again, so that looks for work pass them by; how many."""

    async def forget_expired(self, now: int) -> int:
        """Drop proof uses and stored answers whose time is over; how many."""
