"""A worker: takes up runs that are new, crashed, or answered, several side by side, until it is told to stop.

Rules:
* Each run has a thread of its own, and a holder's key of its own; an `async def` agent has an event loop of its own.
* The lease decides who has a run. Another worker may be faster (`lease_held`): then this one takes the next.
* Stopping takes nothing new and lets the steps under way end; each run is given back at its next border between steps.
  What has not come to one when the time is over is parked all the same, so that nothing it holds lives on.
* A run that failed at every try is set aside with the reason: opened once more, but not run.
* Nothing that an agent raises stops the worker; it is told in one line and stands in the run's record.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from stepgrant import _errors as e
from stepgrant._agent import Handle, session_of
from stepgrant._border import GivenBack
from stepgrant._flows import drive
from stepgrant._outcomes import ListedRun
from stepgrant._run import Opening
from stepgrant._run_flows import park_reason, parking
from stepgrant._session import Session
from stepgrant._timeouts import Patience, Timeouts
from stepgrant._worker_find import Backoff, Finder

_SOMEBODY_ELSE: Final = (e.LeaseHeld, e.RunEnded)
_LAST_PARK_S: Final = 3.0
_LOOK_S: Final = 0.05
_LAST_LINES_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`poll` and `stop_timeout` in seconds."""

    concurrency: int = 4
    poll: float = 0.5
    stop_timeout: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. The rest is there where it applies.

    `kind`: ready, taken, completed, ended, parked, given_back, lost, refused, set_aside, no_broker, stopping, stopped.
    """

    kind: str
    agent: str | None = None
    run: str | None = None
    run_key: str | None = None
    epoch: int | None = None
    tries: int | None = None
    why: str | None = None


@dataclass(slots=True)
class _Job:
    """One run in its thread. `session` is set once it is held."""

    finder: Finder
    row: ListedRun
    session: Session | None = None

    def event(self, kind: str, why: str | None = None) -> Event:
        epoch = None if self.session is None else self.session.epoch
        return Event(kind, self.row.agent, self.row.id, self.row.key, epoch, self.row.tries + 1, why)


class Worker:
    """Works until `stop`. `tell` is called from several threads."""

    def __init__(self, handles: Sequence[Handle[Any, Any]], settings: Settings, tell: Callable[[Event], None]) -> None:
        self._finders = [Finder(handle, settings.backoff) for handle in handles]
        self._settings = settings
        self._tell = tell
        self._jobs: dict[str, _Job] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # A signal's handler may put into it while this very thread takes from it; an Event's lock would not bear that.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stops = 0
        self._unheard = False

    def stop(self) -> None:
        """Take nothing new, give back what is there; the second time: at once. For a signal's handler."""
        self._stops += 1
        self._woken.put(None)

    def work(self) -> bool:
        """Take up runs until it is told to stop. False if something had to be parked in the middle of a step."""
        self._tell(Event("ready"))
        try:
            while not self._stops:
                self._look()
                self._sleep(self._settings.poll * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load
            return self._wind_down()
        finally:
            for finder in self._finders:
                finder.close()

    def _sleep(self, seconds: float) -> None:
        """Until the time is over, or somebody wakes it: a job that ended has made room."""
        try:
            self._woken.get(timeout=seconds)
        except queue.Empty:
            return

    def _look(self) -> None:
        for finder in random.sample(self._finders, len(self._finders)):
            with self._lock:
                busy = set(self._jobs)
            free = self._settings.concurrency - len(busy)
            if free <= 0 or self._stops:
                return
            try:
                rows = finder.find(free, busy)
            except e.StepgrantError as error:
                self._no_broker(finder, error)
                continue
            self._unheard = False
            for row in rows:
                self._take(finder, row)

    def _no_broker(self, finder: Finder, error: e.StepgrantError) -> None:
        if not self._unheard:
            self._tell(Event("no_broker", finder.handle.name, why=f"{error.code}: {error}"))
        self._unheard = True

    def _take(self, finder: Finder, row: ListedRun) -> None:
        job = _Job(finder, row)
        with self._lock:
            self._jobs[row.id] = job
        thread = threading.Thread(target=self._run, args=(job,), name=f"stepgrant-work-{row.id}", daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    # ------------------------------------------------------------------------------------------------ in a job's thread

    def _run(self, job: _Job) -> None:
        try:
            if self._settings.backoff.is_poison(job.row):
                self._set_aside(job)
            else:
                self._perform(job)
        except BaseException as error:  # noqa: BLE001  # the agent's own, or why it was not opened: told, and recorded
            self._tell_of(job, error)
        else:
            job.finder.allowed(job.row.id)
        finally:
            with self._lock:
                del self._jobs[job.row.id]
            self._woken.put(None)

    def _opening(self, job: _Job) -> Opening:
        opening = job.finder.handle.opening(job.row.key, resume=True)
        # Whoever holds the run, or ended it, has it; there are other runs.
        opening.order = replace(opening.order, timeouts=_impatient(opening.order.timeouts), learn=False)
        return opening

    def _perform(self, job: _Job) -> None:
        def on_held(session: Session) -> None:
            job.session = session
            job.finder.allowed(job.row.id)
            self._tell(job.event("taken"))

        job.finder.handle.perform(self._opening(job), on_held)
        came_to = None if job.session is None else job.session.came_to
        self._tell(job.event("completed") if came_to == "complete" else job.event("ended", came_to))

    def _set_aside(self, job: _Job) -> None:
        row = job.row
        ended = row.park_reason or "lease_lapsed"
        try:
            said = job.finder.detail(row.id)
        except e.StepgrantError:
            said = None  # it is another workload's record; that it was tried so often is reason enough
        why = f"{row.tries} tries without a result; the last one ended with {ended}" + (f" ({said})" if said else "")
        with self._opening(job) as held:
            job.session = session_of(held)
            held.park("set_aside", detail=why)
        self._tell(job.event("set_aside", why))

    def _tell_of(self, job: _Job, error: BaseException) -> None:
        why = f"{getattr(error, 'code', type(error).__name__)}: {error}"
        session = job.session
        if session is None:
            self._tell_of_opening(job, error, why)
        elif session.came_to != "park":
            self._tell(job.event("lost", why))
        elif isinstance(error, GivenBack):
            self._tell(job.event("given_back"))
        else:
            self._tell(job.event("parked", f"{park_reason(error, session.passthrough)}: {why}"))

    def _tell_of_opening(self, job: _Job, error: BaseException, why: str) -> None:
        if isinstance(error, _SOMEBODY_ELSE):
            return
        kind = "no_broker" if isinstance(error, e.BrokerUnavailable) else "refused"
        pause = job.finder.leave_alone(job.row.id)
        self._tell(job.event(kind, f"{why}; left alone for {pause:g} s"))

    # ------------------------------------------------------------------------------------------------------- the end

    def _wind_down(self) -> bool:
        left = self._under_way()
        self._tell(Event("stopping", why=f"{len(left)} under way"))
        end = time.monotonic() + self._settings.stop_timeout
        while self._jobs and time.monotonic() < end and self._stops == 1:
            for job in self._under_way():
                if job.session is not None:
                    job.session.stopping = True
            self._sleep(_LOOK_S)
        cut = [job for job in self._under_way() if self._cut(job)]
        if not self._jobs:
            # Each is in its last lines. Python is not to be taken down around a thread that still runs in it.
            for thread in self._threads:
                thread.join(_LAST_LINES_S)
        self._tell(Event("stopped", why=f"{len(cut)} parked in the middle of a step" if cut else None))
        return not cut

    def _under_way(self) -> list[_Job]:
        with self._lock:
            return list(self._jobs.values())

    def _cut(self, job: _Job) -> bool:
        """Take a run from its own thread, which will learn of it at its next call."""
        session = job.session
        if session is None or session.lost is not None:
            return False
        try:
            drive(parking(session, "requested", patience=Patience(_LAST_PARK_S)), session.blocking)
        except e.StepgrantError as error:
            self._tell(job.event("lost", f"{error.code}: {error}"))
        else:
            self._tell(job.event("parked", "requested: the time to stop was over"))
        return True


def _impatient(timeouts: Timeouts) -> Timeouts:
    return replace(timeouts, lease=0.0)
