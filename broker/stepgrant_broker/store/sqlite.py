"""`SqliteStore`: the store of one process on one file. Implements `Store`, `Reads` and `SecretSource`.

Rules:
* One writer thread with group commit (`writer.py`), a few reader threads (`readers.py`); the event loop never waits
  for the disk. Several processes may use one file; SQLite's own lock lets one of them write at a time.
* The schema must be the one that this version knows (`schema.check`); only `schema.migrate` builds or changes it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from stepgrant_broker.store import applying, checking, connecting, schema
from stepgrant_broker.store.forgetting import STRETCHES, Forgetting, Run
from stepgrant_broker.store.loading import load
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.readers import Readers
from stepgrant_broker.store.reading import Reading
from stepgrant_broker.store.statements import Text, sqlite_dialect
from stepgrant_broker.store.writer import Glance, Writer

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.domain.writes import Loaded, Query, WriteSet
    from stepgrant_broker.store.asking import Look, Plan

T = TypeVar("T")
SQL: Final = Queries(sqlite_dialect())
CAPACITY: Final = 1024


class SqliteStore(Reading):
    """Opens a migrated database. Raises `SchemaRefused` (missing, newer, foreign) and `StoreUnavailable`.

    `capacity`: how many reads, and how many write sets, may wait; more are refused. `busy_ms`: how long a transaction
    waits for another process. `clock` is the store's clock. `failpoints` are hit at the points `store.…`
    of `wiring/failpoints.py`, on the writer's thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        failpoints: Failpoints | None = None,
        capacity: int = CAPACITY,
        busy_ms: int = connecting.BUSY_MS,
    ) -> None:
        schema.check(connecting.url_of(path))
        file = connecting.DatabaseFile(path, busy_ms)
        self._sql = SQL
        self._clock = clock
        self._readers = Readers(file, capacity=capacity)
        self._forgetting = Forgetting(applying.SQL)
        self._failpoints = failpoints
        self._writer = Writer(file, clock=clock, failpoints=failpoints, capacity=capacity)

    @property
    def commits(self) -> int:
        """How many durable transactions there were."""
        return self._writer.commits

    async def _run(self, look: Look[T]) -> T:
        return await self._readers.run(look)

    def _time(self) -> int:
        return self._clock.now()

    async def now(self) -> int:
        """The store's clock: SQLite has no better one than this process."""
        return self._clock.now()

    async def load(self, query: Query) -> Loaded:
        """What the query names, in one consistent view. Raises `StoreUnavailable`."""

        def look() -> Plan[Loaded]:
            return load(SQL, query, self._clock.now())

        if self._writer.inbox.load:
            return await self._readers.run(look)
        return cast("Loaded", await self._writer.inbox.put(Glance(look)))

    async def commit(self, writes: WriteSet) -> None:
        """Apply durably and whole, or raise and leave nothing behind.

        Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken` (in this order), `StoreUnavailable`,
        `FateUnknown`, and `WriteSetMalformed` for a set that contradicts itself. Cancelling the caller takes nothing
        back: the set was given.
        """
        checking.check(writes)
        await self._writer.inbox.put(lambda db, now: applying.apply(db, writes, now, self._failpoints))

    async def forget_expired(self, now: int) -> int:
        """Drop proof uses and stored answers whose time is over, in small transactions; how many.

        Of a large table one call goes over a part, and the next goes on from there.
        """
        gone = await self._forget(lambda run: self._forgetting.bodies(run, now))
        for walk in self._forgetting.walks:
            gone += await self._forget(lambda run, walk=walk: self._forgetting.stretch(run, walk, now))  # type: ignore[misc]
        return gone

    async def _forget(self, some: Callable[[Run], tuple[int, bool]]) -> int:
        gone = 0
        for _ in range(STRETCHES):
            dropped, done = await self._writer.inbox.put(lambda db, _: some(_running(db)))
            gone += dropped
            if done:
                break
        return gone

    async def close(self) -> None:
        """Finish what is queued and stop. Later calls raise `StoreUnavailable`; closing again does nothing."""
        self._writer.inbox.close()
        self._readers.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in (*self._readers.threads, self._writer.thread):
            thread.join()


def _running(db: sqlite3.Connection) -> Run:
    def run(text: Text, places: tuple[Any, ...]) -> tuple[int, Sequence[Sequence[Any]]]:
        cursor = db.execute(text.sql, places)
        return cursor.rowcount, cursor.fetchall()

    return run
