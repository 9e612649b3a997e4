"""A few threads that only look, each with its own connection, each plan in one transaction: one consistent view.

Rules:
* The first thread serves as long as it is free: its connection's pages are the warm ones.
* Readers never wait for the writer (WAL), and `query_only` refuses whatever would write.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any, Final, TypeVar, cast

from stepgrant_broker.store import connecting
from stepgrant_broker.store.asking import Look
from stepgrant_broker.store.faults import LASTING, primary_code
from stepgrant_broker.store.inbox import Failed, Inbox, answer, start
from stepgrant_broker.store.plans import look_at, told

T = TypeVar("T")
THREADS: Final = 2


class Readers:
    """The threads and their queues."""

    def __init__(self, file: connecting.DatabaseFile, *, capacity: int) -> None:
        self._file = file
        self._inboxes: list[Inbox[Look[Any]]] = [Inbox(capacity) for _ in range(THREADS)]
        self.threads = [
            start(f"stepgrant-reader-{number}", lambda inbox=inbox: self._serve(inbox))  # type: ignore[misc]
            for number, inbox in enumerate(self._inboxes)
        ]

    async def run(self, look: Look[T]) -> T:
        """What the plan returns. Raises `StoreUnavailable`, and the domain errors of the plan."""
        inbox = min(self._inboxes, key=lambda inbox: inbox.load)
        return cast("T", await inbox.put(look))

    def close(self) -> None:
        """Refuse new work and let the threads come to their end."""
        for inbox in self._inboxes:
            inbox.close()

    def _serve(self, inbox: Inbox[Look[Any]]) -> None:
        reader = _Reader(self._file)
        while reader.turn(inbox):
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
            return look_at(self._db, look)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told and the thread lives on
            lasting = isinstance(error, sqlite3.Error) and primary_code(error) in LASTING
            if self._db is not None and (lasting or self._db.in_transaction):
                self.close()
            return Failed(told(error))

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
