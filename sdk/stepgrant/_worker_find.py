"""Which runs a worker should take up next, and when.

Rules:
* The broker says which runs are resumable and how often each was tried; how long to wait between tries is said here,
  and counted on the broker's clock, so that all workers wait alike.
* A first try, and the first after a crash, comes at once. Then the pauses double. A run that was parked with an error
  always waits: the first pause is for whatever it was that failed.
* What was refused here (policy, a person, a kill switch) is left alone by this worker for a while, twice as long each
  time up to `Backoff.longest`: each try asks policy, and may be an entry in the run's ledger.
* A run is a poison run when it was tried so often without a result and the last try ended badly. One that waited for a
  person, or was given back, did not end badly.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from stepgrant import _calls, _outcomes
from stepgrant._agent import Handle
from stepgrant._flows import drive
from stepgrant._outcomes import ListedRun
from stepgrant._run_flows import Means, prepare
from stepgrant._timeouts import Patience

PAGE: Final = 100
PAGES: Final = 50
ASK_S: Final = 5.0
_DOUBLINGS: Final = 20
_REMEMBERED: Final = 4096
IN_ORDER: Final = frozenset({"queued", "released", "requested", "awaiting_approval", "in_doubt"})
"""Reasons of parking that say nothing against the try before."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries, in seconds, and how many tries there are."""

    first: float = 1.0
    longest: float = 300.0
    max_tries: int = 5

    def pause(self, run: ListedRun) -> float:
        """How long after `resumable_at` the run is to be left alone, in seconds."""
        doublings = run.tries - 2 if run.park_reason != "error" else max(run.tries, 1) - 1
        return 0.0 if doublings < 0 else min(self.longest, self.first * 2.0 ** min(doublings, _DOUBLINGS))

    def due(self, run: ListedRun, now: int) -> bool:
        """Whether it may be taken up now; `now` is the broker's clock (ms)."""
        return run.resumable_at is not None and run.resumable_at + self.pause(run) * 1000 <= now

    def is_poison(self, run: ListedRun) -> bool:
        """Whether it should be set aside instead of being tried again."""
        return run.tries >= self.max_tries and run.park_reason not in IN_ORDER


class Finder:
    """Looks for the runs of one agent, as the workload that would run them. Used by one thread."""

    def __init__(self, handle: Handle[Any, Any], backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self.handle: Final = handle
        self._backoff = backoff
        self._clock = clock
        self._means: Means | None = None
        self._left_alone: dict[str, tuple[float, int]] = {}

    def leave_alone(self, run: str) -> float:
        """Do not take this run for a while, twice as long each time; how long, in seconds."""
        _, times = self._left_alone.pop(run, (0.0, 0))
        if len(self._left_alone) >= _REMEMBERED:
            # The one that was refused the longest ago; the others go on counting.
            self._left_alone.pop(next(iter(self._left_alone)), None)
        pause = min(self._backoff.longest, self._backoff.first * 2.0 ** min(times, _DOUBLINGS))
        self._left_alone[run] = (self._clock() + pause, times + 1)
        return pause

    def allowed(self, run: str) -> None:
        """It was not refused after all."""
        self._left_alone.pop(run, None)

    def find(self, most: int, busy: Collection[str]) -> list[ListedRun]:
        """At most so many runs to take up now, from the oldest on; not those of `busy`.

        Several workers look at one list: which of the first ones each takes is left to chance.
        Raises `StepgrantError` when the broker cannot say.
        """
        found: list[ListedRun] = []
        for page in self._pages():
            found += [run for run in page.runs if run.id not in busy and self._is_due(run, page.now)]
            if len(found) > most:
                break
        front = found[: 2 * most]
        return random.sample(front, min(most, len(front)))

    def detail(self, run: str) -> str | None:
        """What was said of the run when it was parked. Raises `StepgrantError`."""
        shown: ListedRun = self._ask(_calls.show_run(run), ListedRun)
        return shown.park_detail

    def close(self) -> None:
        """Drop the connections."""
        if self._means is not None:
            self._means.blocking.close()

    def _is_due(self, run: ListedRun, now: int) -> bool:
        until, _ = self._left_alone.get(run.id, (0.0, 0))
        return until <= self._clock() and self._backoff.due(run, now)

    def _pages(self) -> Iterator[_outcomes.RunPage]:
        after: str | None = None
        for _ in range(PAGES):
            page = self._ask(_calls.resumable_runs(self.handle.name, limit=PAGE, after=after), _outcomes.RunPage)
            yield page
            after = page.next
            if after is None:
                return

    def _ask(self, call: _calls.Call, kind: Any) -> Any:  # noqa: ANN401  # as `Caller.call`
        if self._means is None:
            self._means = prepare(self.handle.order())
        return drive(self._means.caller.call(call, kind, patience=Patience(ASK_S)), self._means.blocking)
