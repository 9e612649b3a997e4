"""The one thread that writes to PostgreSQL: many write sets in one transaction (group commit).

Rules:
* All sets of a batch go out in one round trip, the first while the last are made, COMMIT with them. A statement that
  does not do what it must is an error there (`postgres_sql.or_fails`), and PostgreSQL passes over everything behind an
  error, COMMIT included.
* If any was one, all of it is rolled back and the batch is applied again, each set inside a savepoint: a refused set
  falls alone, its `jti` included, and is told the first reason in the fixed order. Then COMMIT is a round of its own.
* What is lost before COMMIT was sent is not there, and is sent once more. A COMMIT without an answer leaves the fate of
  its sets unknown (`FateUnknown`), and is never sent again: so the connection is looked at just before it goes out.
* The thread outlives every error; the link opens a new connection by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, cast

from stepgrant_broker.domain.errors import StepgrantFault, StoreUnavailable
from stepgrant_broker.domain.writes import WriteSet
from stepgrant_broker.store import postgres_sql as sql
from stepgrant_broker.store.asking import Ask
from stepgrant_broker.store.breaking import answer_in_halves, in_pieces
from stepgrant_broker.store.faults import RETRY_MS
from stepgrant_broker.store.inbox import Failed, Inbox, Job, answer, start
from stepgrant_broker.store.postgres_applying import POINTS, Part, alone, locks, parts
from stepgrant_broker.store.postgres_faults import (
    AGAIN,
    ENDING,
    READ_ONLY,
    Lost,
    Refused,
    all_told,
    fate_unknown,
    malformed,
    untouched,
)
from stepgrant_broker.store.postgres_wire import encoded

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.store.forgetting import Run
    from stepgrant_broker.store.postgres_link import Answer, Link
    from stepgrant_broker.store.statements import Text

BATCH_MAX: Final = 128
TRIES: Final = 3
_COMMIT: Final = Ask(sql.COMMIT, ())


@dataclass(frozen=True, slots=True)
class Chore:
    """Work in a transaction of its own; it may be run again. `apart`: it is counted apart."""

    work: Callable[[Run], Any]
    apart: bool = False


class _Unknown(Exception):
    """COMMIT was sent, and what became of it is not known."""


class PostgresWriter:
    """`commits` counts durable transactions, `commits_apart` those of chores that say so.

    `clock`: a test's; otherwise the database's own is used.
    """

    def __init__(self, link: Link, *, clock: Clock | None, failpoints: Failpoints | None, capacity: int) -> None:
        self.commits = self.commits_apart = 0
        self.inbox: Inbox[WriteSet | Chore] = Inbox(capacity)
        self._link = link
        self._clock = clock
        self._failpoints = failpoints
        self.thread = start("stepgrant-writer", self._run)

    def _run(self) -> None:
        while self._turn():
            continue
        self._link.close()

    def _turn(self) -> bool:
        """One batch; its sets are not kept while waiting for the next."""
        jobs = self.inbox.take(BATCH_MAX)
        sets = [cast("Job[WriteSet]", job) for job in jobs if isinstance(job.work, WriteSet)]
        if sets:
            outcomes = self._batch(sets)
            if self._failpoints is None:
                answer(outcomes)
            else:
                answer_in_halves(self._failpoints, outcomes)
        for job in jobs:
            if isinstance(job.work, Chore):
                answer([(job, self._chore(job.work))])
        return bool(jobs)

    def _batch(self, jobs: list[Job[WriteSet]]) -> list[tuple[Job[WriteSet], object]]:
        sets = [job.work for job in jobs]
        outcomes: list[object] = []
        try:
            if self._failpoints is not None:
                self._failpoints.hit("store.before_apply")
            outcomes = self._tried(lambda: self._applied(sets))
            if self._begun:
                self._finish(outcomes)
        except _Unknown:
            fates = outcomes or [None] * len(jobs)
            outcomes = [Failed(untouched() if isinstance(one, Failed) else fate_unknown()) for one in fates]
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller is told and the thread lives on
            self._link.leave(Ask(sql.ROLLBACK, ()))
            outcomes = [Failed(all_told(error)) for _ in jobs]
        return list(zip(jobs, outcomes, strict=True))

    def _finish(self, outcomes: list[object], *, apart: bool = False) -> None:
        """Commit what is there, and count it. Raises `_Unknown`, and what leaves nothing behind."""
        if not self._changed or all(isinstance(outcome, Failed) for outcome in outcomes):
            self._link.leave(Ask(sql.ROLLBACK, ()))
            return
        if apart:
            # It comes when it likes: it must not shift the numbers of those that tests break at.
            self._commit()
            self.commits_apart += 1
            return
        if self._failpoints is not None:
            self._failpoints.hit("store.before_commit")
        self._commit()
        self.commits += 1
        try:
            if self._failpoints is not None:
                self._failpoints.hit("store.after_commit")
        except Exception as error:
            raise _Unknown from error

    def _commit(self) -> None:
        if not self._link.is_open:
            raise Lost
        try:
            _committed(self._link.round([_COMMIT]))
        except Lost:
            raise _Unknown from None
        except Refused as refused:
            if refused.sqlstate.startswith(ENDING):
                raise _Unknown from None
            raise

    def _tried(self, apply: Callable[[], list[object]]) -> list[object]:
        """Again after a deadlock, or on a new connection; nothing of what was done before is there."""
        for left in reversed(range(TRIES)):
            try:
                return apply()
            except Lost:
                if not left:
                    raise
            except Refused as refused:
                self._link.leave(Ask(sql.ROLLBACK, ()))
                if refused.sqlstate == READ_ONLY:
                    self._link.close()  # the session stays read only, wherever the address leads by now
                if refused.sqlstate not in AGAIN or not left:
                    raise
        raise Lost

    def _applied(self, sets: list[WriteSet]) -> list[object]:
        """The outcome of each set, durable or, if `_begun`, in the open transaction."""
        now = None if self._clock is None else self._clock.now()
        try:
            self._together(sets, now)
        except (Refused, StepgrantFault, ValueError, TypeError) as error:
            if isinstance(error, StoreUnavailable) or (isinstance(error, Refused) and not error.of_one_set):
                raise
            self._link.leave(Ask(sql.ROLLBACK, ()))
            return self._apart(sets, now)
        return [None] * len(sets)

    def _together(self, sets: list[WriteSet], now: int | None) -> None:
        """All in one round trip. Raises `Refused` unless every set did what it must, and `_Unknown`."""
        self._begun, self._changed = True, 0
        lone = len(sets) == 1
        before = [Ask(sql.BEGIN_WRITE, ()), *locks(sets, lone=lone)]
        found = alone(sets[0], now) if lone else (part for writes in sets for part in parts(writes, now))
        if self._failpoints is None:
            answers = self._through(before, found)
        else:
            known = list(found)
            points = [*(None for _ in before), *(POINTS.get(part.ask.text) for part in known)]
            answers = self._broken_up(self._failpoints, [*before, *(part.or_fails for part in known)], points)
        self._changed = sum(one.changed or sum(map(sum, one.rows)) for one in answers[len(before) :])
        if self._failpoints is None:
            self._begun = False
            self.commits += self._changed > 0

    def _through(self, before: list[Ask], found: Iterable[Part]) -> list[Answer]:
        """One round with COMMIT at its end: all is durable, or (`Refused`, or what making the rest raises) nothing."""
        sent: list[Ask] = []

        def last() -> Iterable[Ask]:
            self._link.look()
            sent.append(_COMMIT)
            yield _COMMIT

        asks = chain(before, (part.or_fails for part in found), last())
        try:
            answers, error = self._link.attempt(asks, head=len(before) + 1)
        except Lost:
            if sent:
                raise _Unknown from None
            raise
        if error is not None and error.last and error.sqlstate.startswith(ENDING):
            raise _Unknown
        if error is not None:
            raise error
        return _committed(answers)

    def _broken_up(self, failpoints: Failpoints, asks: list[Ask], points: list[str | None]) -> list[Answer]:
        """As one round without COMMIT, with the failpoint of a statement behind it."""
        answers: list[Answer] = []
        for piece, point in in_pieces(asks, points):
            answers += self._link.round(piece)
            if point is not None:
                failpoints.hit(point)
        return answers

    def _apart(self, sets: list[WriteSet], now: int | None) -> list[object]:
        """Each set in its savepoint, one after the other. Raises `Refused`, `Lost` when all of it is gone."""
        self._begun, self._changed = True, 0
        ready = [_ready(writes, now) for writes in sets]
        sound = [writes for writes, one in zip(sets, ready, strict=True) if not isinstance(one, Failed)]
        if sound:
            self._link.round([Ask(sql.BEGIN_WRITE, ()), *locks(sound, lone=False)])
        return [one if isinstance(one, Failed) else self._one(one) for one in ready]

    def _one(self, found: list[Part]) -> object:
        answers, error = self._link.attempt([Ask(sql.SAVEPOINT, ()), *(part.ask for part in found)])
        refusal = _wrong(found, answers[1:])
        if refusal is None and error is not None:
            if not error.of_one_set:
                raise error
            refusal = malformed(error)
        if refusal is None:
            self._link.round([Ask(sql.RELEASE, ())])
            self._changed += sum(one.changed for one in answers)
            return None
        self._link.round([Ask(sql.BACK, ()), Ask(sql.RELEASE, ())])
        return Failed(refusal)

    def _chore(self, chore: Chore) -> object:
        def work() -> list[object]:
            self._changed = 0
            self._link.round([Ask(sql.BEGIN_WRITE, ())])
            return [chore.work(self._running)]

        try:
            (outcome,) = self._tried(work)
            self._finish([outcome], apart=chore.apart)
        except _Unknown:
            return Failed(fate_unknown())
        except Exception as error:  # noqa: BLE001 - as in `_batch`
            self._link.leave(Ask(sql.ROLLBACK, ()))
            return Failed(all_told(error))
        return outcome

    def _running(self, text: Text, places: tuple[Any, ...]) -> tuple[int, Sequence[Sequence[Any]]]:
        (done,) = self._link.round([Ask(text, places)])
        self._changed += done.changed
        return done.changed, done.rows


def _ready(writes: WriteSet, now: int | None) -> list[Part] | Failed:
    """The set's statements, or why it has none: a value without a form must not hold up its neighbours."""
    try:
        found = list(parts(writes, now))
        for part in found:
            encoded(part.ask.places)
    except (ValueError, TypeError) as error:
        return Failed(malformed(error))
    except StepgrantFault as fault:
        return Failed(fault.with_traceback(None))
    return found


def _wrong(found: Sequence[Part], answers: Sequence[Answer]) -> Exception | None:
    """The first refusal among what was answered."""
    for part, done in zip(found, answers, strict=False):
        refusal = part.wrong(done)
        if refusal is not None:
            return refusal
    return None


def _committed(answers: list[Answer]) -> list[Answer]:
    """The answers before the last one, which is COMMIT's. Raises `StoreUnavailable` if it did not commit."""
    if answers[-1].word != b"COMMIT":
        # PostgreSQL answers ROLLBACK to the COMMIT of a transaction that had failed before.
        raise StoreUnavailable("PostgreSQL took the transaction back", retry_after_ms=RETRY_MS)
    return answers[:-1]
