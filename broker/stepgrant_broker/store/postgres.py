"""`PostgresStore`: the store of several brokers on one PostgreSQL. Implements `Store`, `Reads` and `SecretSource`.

Rules:
* One writer thread with group commit, a few reader threads, each with a connection of its own (`postgres_link.py`); the
  event loop never waits for the network.
* The clock is the database's, one for all brokers, unless a test gives another. What is recalled without a look is
  dated by its last answer and the time since, two seconds at most (`remembering.SeenClock`).
* The one question that goes over whole tables (`strays`, of a check) has a connection of its own, and an hour: beside
  the calls of agents it would be given up, and on a large database the check could never come to its end.
* The schema must be the one that this version knows (`schema.check`); only `schema.migrate` builds or changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar, cast

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import checking, scanning, schema
from stepgrant_broker.store import postgres_sql as sql
from stepgrant_broker.store.asking import Plan, ask
from stepgrant_broker.store.forgetting import Forgetting, Run
from stepgrant_broker.store.keeping import Keeping
from stepgrant_broker.store.loading import load
from stepgrant_broker.store.postgres_faults import Lost, Refused, told
from stepgrant_broker.store.postgres_link import Link, Manner
from stepgrant_broker.store.postgres_readers import PostgresReaders, view
from stepgrant_broker.store.postgres_writer import Chore, PostgresWriter
from stepgrant_broker.store.remembering import Memory, SeenClock
from stepgrant_broker.store.sealing import Clear

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.domain.scanning import Stray
    from stepgrant_broker.domain.writes import Loaded, Query, WriteSet
    from stepgrant_broker.store.asking import Look

T = TypeVar("T")
CAPACITY: Final = 1024
SCAN_S: Final = 3600.0
READERS: Final = 4


class PostgresStore(Keeping):
    """Opens a migrated database. Raises `SchemaRefused` (missing, newer, foreign) and `StoreUnavailable`.

    `url` (`postgresql://user:password@host/database`) is never shown. `capacity`: how many reads of a connection, and
    how many write sets, may wait; more are refused. `clock`: of a test; otherwise the database's own. `failpoints` are
    hit at `store.before_apply`, `store.before_commit`, `store.after_commit` and `store.after_reply`, on the writer's
    thread.
    """

    _readers: PostgresReaders
    _writer: PostgresWriter

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        failpoints: Failpoints | None = None,
        seal: Clear | None = None,
        capacity: int = CAPACITY,
        readers: int = READERS,
        manner: Manner | None = None,
    ) -> None:
        schema.check(url)
        manner = manner or Manner()
        self._sql = sql.READS
        self._log = sql.LOG
        self._keys = sql.KEYS
        self._rewrap = sql.REWRAP
        self._erasing, self._erased = sql.ERASING, {}
        self._clock = clock
        self._seen = SeenClock()
        self._memory = Memory(self._seen.now if clock is None else clock.now)
        self._seal = seal or Clear()
        writing = replace(manner, application=f"{manner.application}-writer")
        self._readers = PostgresReaders([Link(url, manner) for _ in range(readers)], capacity=capacity)
        self._writer = PostgresWriter(Link(url, writing), clock=clock, failpoints=failpoints, capacity=capacity)
        self._forgetting = Forgetting(sql.WRITES)
        patient = max(SCAN_S, manner.statement_s)
        self._scan = Link(url, replace(manner, application=f"{manner.application}-check", statement_s=patient))
        self._scanning = asyncio.Lock()

    async def _run(self, look: Look[T]) -> T:
        return await self._readers.run(look)

    def _time(self) -> int | None:
        return None if self._clock is None else self._clock.now()

    async def now(self) -> int:
        """The database's clock."""

        def plan() -> Plan[int]:
            (found,) = yield [ask(self._sql.now, now=self._time())]
            return int(found[0][0])

        return await self._readers.run(plan)

    async def strays(self) -> tuple[Stray, ...]:
        """Rows without the row that they belong to, some of each table. Raises `StoreUnavailable`."""
        async with self._scanning:
            return await asyncio.to_thread(self._scanned, lambda: scanning.strays(self._sql))

    def _scanned(self, look: Look[T]) -> T:
        try:
            return view(self._scan, look)
        except (Lost, Refused) as error:
            raise told(error) from None
        finally:
            self._scan.close()

    async def load(self, query: Query) -> Loaded:
        """What the query names, in one consistent view. Raises `StoreUnavailable`."""
        asked_at = monotonic()
        looking = self._readers.run(lambda: load(self._sql, query, self._time(), self._seal))
        found = await self._memory.looked_up(query, looking)
        self._seen.saw(found.now, asked_at)
        return found

    async def commit(self, writes: WriteSet) -> None:
        """Apply durably and whole, or raise and leave nothing behind.

        Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken` (in this order), `StoreUnavailable`,
        `FateUnknown`, and `WriteSetMalformed` for a set that contradicts itself. Cancelling the caller takes nothing
        back: the set was given.
        """
        checking.check(writes)
        rest: tuple[str, ...] = ()
        if writes.destroy:
            writes, rest = await self._destroyed(writes)
        await self._memory.after(writes, self._writer.inbox.put(self._seal.into(writes)))
        if writes.destroy:
            with contextlib.suppress(StoreUnavailable):
                # It is erased. What did not fit goes now, or with the next sweep.
                await self._clear(writes.tenant, writes.run or "", rest)

    async def compact(self) -> None:
        """Nothing: its VACUUM makes room again without writing it over, and its log and backups are its owner's."""

    async def _do(self, work: Callable[[Run], T], *, apart: bool = False) -> T:
        return cast("T", await self._writer.inbox.put(Chore(work, apart)))
