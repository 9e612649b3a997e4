"""`SqliteStore`: the store of one process on one file. Implements `Store`, `Reads` and `SecretSource`.

Rules:
* One writer thread with group commit (`writer.py`), a few reader threads (`readers.py`); the event loop never waits
  for the disk. Several processes may use one file; SQLite's own lock lets one of them write at a time.
* The schema must be the one that this version knows (`schema.check`); only `schema.migrate` builds or changes it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sqlalchemy.dialects import sqlite

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import applying, checking, connecting, schema
from stepgrant_broker.store.erasing import ErasingQueries
from stepgrant_broker.store.forgetting import Forgetting, Run
from stepgrant_broker.store.keeping import Keeping
from stepgrant_broker.store.keys import KeyStatements
from stepgrant_broker.store.loading import load
from stepgrant_broker.store.log import LogStatements, by_stretch
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.readers import Readers
from stepgrant_broker.store.remembering import Memory
from stepgrant_broker.store.rewrapping import RewrapStatements
from stepgrant_broker.store.sealing import Clear
from stepgrant_broker.store.statements import Text, sqlite_dialect
from stepgrant_broker.store.writer import Chore, Truncation, Writer

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.domain.writes import Loaded, Query, WriteSet
    from stepgrant_broker.store.asking import Look, Plan

T = TypeVar("T")
SQL: Final = Queries(sqlite_dialect())
LOG: Final = LogStatements(sqlite_dialect(), sqlite.insert, by_stretch)
KEYS: Final = KeyStatements(sqlite_dialect(), sqlite.insert)
REWRAP: Final = RewrapStatements(sqlite_dialect())
ERASING: Final = ErasingQueries(sqlite_dialect())
CAPACITY: Final = 1024


class SqliteStore(Keeping):
    """Opens a migrated database. Raises `SchemaRefused` (missing, newer, foreign) and `StoreUnavailable`.

    `capacity`: how many reads, and how many write sets, may wait; more are refused. `busy_ms`: how long a transaction
    waits for another process. `clock` is the store's clock. `failpoints` are hit at the points `store.…`
    of `wiring/failpoints.py`, on the writer's thread.
    """

    _readers: Readers
    _writer: Writer

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        failpoints: Failpoints | None = None,
        seal: Clear | None = None,
        capacity: int = CAPACITY,
        busy_ms: int = connecting.BUSY_MS,
    ) -> None:
        schema.check(connecting.url_of(path))
        file = connecting.DatabaseFile(path, busy_ms)
        self._sql = SQL
        self._log = LOG
        self._keys = KEYS
        self._rewrap = REWRAP
        self._erasing, self._erased = ERASING, {}
        self._clock = clock
        self._seal = seal or Clear()
        self._traces = True
        self._memory = Memory(clock.now)
        self._readers = Readers(file, capacity=capacity)
        self._forgetting = Forgetting(applying.SQL)
        self._failpoints = failpoints
        self._writer = Writer(file, clock=clock, failpoints=failpoints, capacity=capacity)

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
            return load(SQL, query, self._clock.now(), self._seal)

        return await self._memory.looked_up(query, self._readers.run(look))

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
        sealed = self._seal.into(writes)
        put = self._writer.inbox.put(lambda db, now: applying.apply(db, sealed, now, self._failpoints))
        await self._memory.after(writes, put)
        if writes.destroy:
            self._traces = True
            with contextlib.suppress(StoreUnavailable):
                # It is erased. What did not fit, and what the log's file still shows, goes now or with the next sweep.
                await self._clear(writes.tenant, writes.run or "", rest)
                await self._remove_traces()

    async def forget_expired(self, now: int) -> int:
        """As `Keeping`. The first of a process also removes what an erasure before it may have left in the log."""
        gone = await super().forget_expired(now)
        await self._remove_traces()
        return gone

    async def compact(self) -> None:
        """Write the database anew, without what free space still holds of rows that were written over."""
        self._traces = not await self._writer.inbox.put(Truncation(whole=True))

    async def _remove_traces(self) -> None:
        """Empty the write-ahead log: what was destroyed stands in it, until its file is cut or written over."""
        if self._traces:
            self._traces = not await self._writer.inbox.put(Truncation())

    async def _do(self, work: Callable[[Run], T], *, apart: bool = False) -> T:
        def chore(db: sqlite3.Connection, _: int) -> T:
            return work(_running(db))

        return cast("T", await self._writer.inbox.put(Chore(chore, apart)))


def _running(db: sqlite3.Connection) -> Run:
    def run(text: Text, places: tuple[Any, ...]) -> tuple[int, Sequence[Sequence[Any]]]:
        cursor = db.execute(text.sql, places)
        return cursor.rowcount, cursor.fetchall()

    return run
