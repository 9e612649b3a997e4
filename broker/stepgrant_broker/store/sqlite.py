"""`SqliteStore`: the store of one process on one file. Implements `Store`, `Reads` and `SecretSource`.

Rules:
* One writer thread with group commit (`writer.py`), a few reader threads (`readers.py`); the event loop never waits
  for the disk. Several processes may use one file; SQLite's own lock lets one of them write at a time.
* The schema must be the one that this version knows (`schema.check`); only `schema.migrate` builds or changes it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepgrant_broker.store import applying, checking, connecting, schema
from stepgrant_broker.store.loading import load
from stepgrant_broker.store.readers import Readers
from stepgrant_broker.store.reading import Reading
from stepgrant_broker.store.writer import Writer

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.domain.writes import Loaded, Query, WriteSet

CAPACITY: Final = 1024
FORGET_BATCH: Final = 1000


class SqliteStore(Reading):
    """Opens a migrated database. Raises `SchemaRefused` (missing, newer, foreign) and `StoreUnavailable`.

    `capacity`: how many reads, and how many write sets, may wait; more are refused. `busy_ms`: how long a transaction
    waits for another process. `clock` is the store's clock. `failpoints` are hit at `store.before_apply`,
    `store.before_commit`, `store.after_commit` and `store.after_reply`, on the writer's thread.
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
        super().__init__(Readers(file, capacity=capacity), clock)
        self._writer = Writer(file, clock=clock, failpoints=failpoints, capacity=capacity)

    @property
    def commits(self) -> int:
        """How many durable transactions there were."""
        return self._writer.commits

    async def load(self, query: Query) -> Loaded:
        """What the query names, in one consistent view. Raises `StoreUnavailable`."""
        return await self._run(lambda db: load(db, query, self._clock.now()))

    async def commit(self, writes: WriteSet) -> None:
        """Apply durably and whole, or raise and leave nothing behind.

        Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken` (in this order), `StoreUnavailable`,
        `FateUnknown`, and `WriteSetMalformed` for a set that contradicts itself. Cancelling the caller takes nothing
        back: the set was given.
        """
        checking.check(writes)
        await self._writer.inbox.put(lambda db, now: applying.apply(db, writes, now))

    async def forget_expired(self, now: int) -> int:
        """Drop proof uses and stored answers whose time is over, in small transactions; how many."""
        gone, done = 0, False
        while not done:
            some, done = await self._writer.inbox.put(lambda db, _: applying.forget(db, now, FORGET_BATCH))
            gone += some
        return gone

    async def close(self) -> None:
        """Finish what is queued and stop. Later calls raise `StoreUnavailable`; closing again does nothing."""
        self._writer.inbox.close()
        self._readers.inbox.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in (*self._readers.threads, self._writer.thread):
            thread.join()
