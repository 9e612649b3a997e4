"""A few threads that only look, each with its own connection, each call in one transaction: one consistent view.

Rules:
* Readers never wait for the writer (WAL), and `query_only` refuses whatever would write.
* A row that cannot be read back is `StoreUnavailable`: somebody else wrote it, and nothing may be decided on it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

from stepgrant_broker.domain.errors import StepgrantFault, StoreUnavailable
from stepgrant_broker.store import connecting
from stepgrant_broker.store.faults import LASTING, primary_code, unavailable
from stepgrant_broker.store.inbox import Failed, Inbox, answer, start
from stepgrant_broker.store.rows import RowDamaged

T = TypeVar("T")
Look: TypeAlias = Callable[[sqlite3.Connection], T]

THREADS: Final = 2


class Readers:
    """The threads and their queue."""

    def __init__(self, file: connecting.DatabaseFile, *, capacity: int) -> None:
        self.inbox: Inbox[Look[Any]] = Inbox(capacity)
        self._file = file
        self.threads = [start(f"stepgrant-reader-{number}", self._run) for number in range(THREADS)]

    async def run(self, look: Look[T]) -> T:
        """What `look` returns. Raises `StoreUnavailable`, and the domain errors of `look`."""
        return cast("T", await self.inbox.put(look))

    def _run(self) -> None:
        reader = _Reader(self._file)
        while reader.turn(self.inbox):
            continue
        reader.close()


class _Reader:
    """One thread's connection."""

    def __init__(self, file: connecting.DatabaseFile) -> None:
        self._file = file
        self._db: sqlite3.Connection | None = None

    def turn(self, inbox: Inbox[Look[Any]]) -> bool:
        """One call; what it read is not kept while waiting for the next."""
        jobs = inbox.take(1)
        for job in jobs:
            if not job.future.cancelled():
                answer([(job, self._outcome(job.work))])
        return bool(jobs)

    def _outcome(self, look: Look[Any]) -> object:
        try:
            self._file.require()
            self._db = self._db or connecting.open_reader(self._file)
            return _look(self._db, look)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told and the thread lives on
            lasting = isinstance(error, sqlite3.Error) and primary_code(error) in LASTING
            if self._db is not None and (lasting or self._db.in_transaction):
                self.close()
            return Failed(_told(error))

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _look(db: sqlite3.Connection, look: Look[T]) -> T:
    db.execute("BEGIN")
    try:
        return look(db)
    finally:
        # After some errors SQLite has ended the transaction by itself; ending it again would hide what was wrong.
        if db.in_transaction:
            db.execute("COMMIT")


def _told(error: Exception) -> StepgrantFault:
    if isinstance(error, RowDamaged):
        return StoreUnavailable(f"{error}; stop the broker and restore the database")
    if isinstance(error, StepgrantFault):
        return error.with_traceback(None)
    return unavailable(error)
