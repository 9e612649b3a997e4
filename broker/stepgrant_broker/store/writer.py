"""The one thread that writes: many write sets in one durable transaction (group commit).

Rules:
* One `BEGIN IMMEDIATE` for all sets that are waiting, and one COMMIT; callers hear of it only then.
* If one of several is refused, all are rolled back and applied again, each in a SAVEPOINT: it falls alone then. So the
  many batches of which nothing is refused need none: a SAVEPOINT keeps a copy of each page that changes after it.
* A database error aborts all sets of the transaction: none of them is there.
* An error of COMMIT itself leaves the fate of its sets unknown (`FateUnknown`): the bytes may have reached the disk.
* The thread outlives every error. After a lasting one it opens a new connection, so that a store recovers by itself.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from stepgrant_broker.domain.errors import FateUnknown, StepgrantFault, StoreUnavailable
from stepgrant_broker.domain.refusals import StoreRefusal
from stepgrant_broker.store import connecting
from stepgrant_broker.store.breaking import answer_in_halves, quietly
from stepgrant_broker.store.faults import LASTING, RETRY_MS, is_of_one_set, malformed, primary_code, unavailable
from stepgrant_broker.store.inbox import Failed, Inbox, Job, answer, start
from stepgrant_broker.store.plans import told

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock, Failpoints

Work: TypeAlias = Callable[[sqlite3.Connection, int], Any]
"""Changes the database inside a savepoint, at a time in milliseconds; what it returns is the outcome."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """Copy the write-ahead log into the database and empty its file; True when nothing of it is left.

    `whole`: first write the whole database anew, without what free space still holds. Nobody else writes meanwhile.
    """

    whole: bool = False


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that is of no call and may take long. `apart`: its transactions are counted apart, if it has its own."""

    work: Work
    apart: bool = False

    def __call__(self, db: sqlite3.Connection, now: int) -> Any:  # noqa: ANN401 - as of `Work`
        """Do it."""
        return self.work(db, now)


BATCH_MAX: Final = 128
TRUNCATION_MS: Final = 100


class Writer:
    """`commits` counts durable transactions, `commits_apart` those of chores that are `apart`."""

    def __init__(
        self, file: connecting.DatabaseFile, *, clock: Clock, failpoints: Failpoints | None, capacity: int
    ) -> None:
        self.commits = self.commits_apart = 0
        self.inbox: Inbox[Work | Truncation] = Inbox(capacity)
        self._file = file
        self._clock = clock
        self._failpoints = failpoints
        self._db: sqlite3.Connection | None = None
        self.thread = start("stepgrant-writer", self._run)

    def _run(self) -> None:
        while self._turn():
            continue
        self._drop()

    def _turn(self) -> bool:
        """One batch; its sets are not kept while waiting for the next."""
        jobs = self.inbox.take(BATCH_MAX)
        sets: list[Job[Work]] = []
        for job in jobs:
            if isinstance(job.work, Truncation):
                answer([(job, self._truncated(whole=job.work.whole))])
            else:
                sets.append(cast("Job[Work]", job))
        if sets:
            outcomes = self._batch(sets)
            if self._failpoints is None or _apart(sets):
                answer(outcomes)
            else:
                answer_in_halves(self._failpoints, outcomes)
                self._checkpoint(self._failpoints)
        return bool(jobs)

    def _truncated(self, *, whole: bool) -> object:
        """Outside of any transaction that writes; the outcome."""
        try:
            return self._truncate(self._connected(), whole=whole)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told and the thread lives on
            self._recover(error)
            return Failed(told(error))

    def _truncate(self, db: sqlite3.Connection, *, whole: bool) -> bool:
        if whole:
            db.execute("VACUUM")
        # It has to wait for readers of older states, and everybody waits for it: better to try again later.
        db.execute(f"PRAGMA busy_timeout = {TRUNCATION_MS}")
        try:
            (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(self._file.busy_ms)}")
        return not busy

    def _checkpoint(self, failpoints: Failpoints) -> None:
        """Copy the log into the database with a failpoint beside it. SQLite does it inside a COMMIT, out of reach."""
        beside = start("stepgrant-checkpoint-failpoint", lambda: quietly(failpoints, "store.checkpoint"))
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        beside.join()

    def _batch(self, jobs: list[Job[Work]]) -> list[tuple[Job[Work], object]]:
        outcomes: list[object] = []
        sent, apart = False, _apart(jobs)
        # Work that is apart comes when it likes: it must not shift the numbers of those that tests break at.
        failpoints = None if apart else self._failpoints
        try:
            if failpoints is not None:
                failpoints.hit("store.before_apply")
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            before, now = db.total_changes, self._clock.now()
            outcomes = [_try(db, job.work, now) for job in jobs]
            if len(jobs) > 1 and any(isinstance(outcome, Failed) for outcome in outcomes):
                db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
                before = db.total_changes
                outcomes = [_one(db, job.work, now) for job in jobs]
            if db.total_changes == before or all(isinstance(outcome, Failed) for outcome in outcomes):
                db.execute("ROLLBACK")
            else:
                if failpoints is not None:
                    failpoints.hit("store.before_commit")
                sent = True
                db.execute("COMMIT")
                if apart:
                    self.commits_apart += 1
                else:
                    self.commits += 1
                if failpoints is not None:
                    failpoints.hit("store.after_commit")
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller is told and the thread lives on
            self._recover(error)
            applied = [sent and not isinstance(outcome, Failed) for outcome in outcomes] or [False] * len(jobs)
            outcomes = [Failed(_fate_unknown(error) if there else _untouched(error)) for there in applied]
        return list(zip(jobs, outcomes, strict=True))

    def _connected(self) -> sqlite3.Connection:
        self._file.require()
        if self._db is None:
            self._db = connecting.open_writer(self._file)
        return self._db

    def _recover(self, error: Exception) -> None:
        db = self._db
        if db is None:
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()
        if isinstance(error, sqlite3.Error) and primary_code(error) in LASTING:
            self._drop()

    def _drop(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _apart(jobs: list[Job[Work]]) -> bool:
    return all(isinstance(job.work, Chore) and job.work.apart for job in jobs)


def _one(db: sqlite3.Connection, work: Work, now: int) -> object:
    """Apply one set inside its savepoint: its outcome, or `Failed` with nothing left of it."""
    db.execute("SAVEPOINT one")
    outcome = _try(db, work, now)
    if isinstance(outcome, Failed):
        db.execute("ROLLBACK TO one")
    db.execute("RELEASE one")
    return outcome


def _try(db: sqlite3.Connection, work: Work, now: int) -> object:
    """Apply one set: its outcome, or `Failed`. What only concerns this set is its outcome; anything else is raised."""
    try:
        return work(db, now)
    except (StoreRefusal, StepgrantFault) as refusal:
        return Failed(refusal.with_traceback(None))
    except Exception as error:
        if not is_of_one_set(error):
            raise
        return Failed(malformed(error))


def _untouched(error: Exception) -> StoreUnavailable:
    fault = unavailable(error)
    return StoreUnavailable(fault.detail, retry_after_ms=fault.retry_after_ms)


def _fate_unknown(error: Exception) -> FateUnknown:
    return FateUnknown(
        f"the commit was sent and its reply lost: {unavailable(error).detail}; repeat with the same Idempotency-Key",
        retry_after_ms=RETRY_MS,
    )
