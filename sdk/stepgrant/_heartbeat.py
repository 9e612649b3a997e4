"""The heartbeat: a daemon thread that keeps the lease while a tool, a model call or an event loop takes its time.

It is a thread in both faces, because a loop that a tool blocks could not renew anything. Whatever the run's own calls
renew it leaves out. What it learns (fenced, ended, quarantined) it puts into the session, where every call finds it.

A broker may be away for hours, while every beat fails. That is said once, then ever more seldom, and once when it is
over: a warning at each beat would hide all others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._flows import drive
from stepgrant._session import Session
from stepgrant._timeouts import Patience

_log = logging.getLogger("stepgrant")
_SHORTEST_S: Final = 0.02
_FIRST_GAP_S: Final = 10.0
_LONGEST_GAP_S: Final = 3600.0


class Failing:
    """Whether one more failure is worth a word. `clock`: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._next = 0.0
        self._gap = _FIRST_GAP_S

    def again(self) -> bool:
        """It failed. True the first time, and then each time that the gap, which doubles, has passed."""
        now = self._clock()
        if self._since is None:
            self._since, self._gap = now, _FIRST_GAP_S
        elif now < self._next:
            return False
        self._next = now + self._gap
        self._gap = min(_LONGEST_GAP_S, self._gap * 2)
        return True

    def over(self) -> float | None:
        """It worked. For how many seconds it had not; None if it had."""
        since, self._since = self._since, None
        return None if since is None else self._clock() - since


class Heartbeat:
    """Beats from `start` until `stop`."""

    def __init__(self, session: Session) -> None:
        self.quiet = False
        """Set while the run is being ended: that a beat then finds it ended is no news."""
        self._session = session
        self._stopped = threading.Event()
        self._failing = Failing()
        self._thread = threading.Thread(target=self._beat, name=f"stepgrant-heartbeat-{session.run_id}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for a beat that is under way, so that none comes after the run is given up."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=self._session.timeouts.call)

    def ask_to_stop(self) -> None:
        """As `stop`, without waiting: for an event loop."""
        self._stopped.set()

    def _beat(self) -> None:
        session = self._session
        while session.lost is None and not self._stopped.wait(max(_SHORTEST_S, session.next_beat_in)):
            if session.next_beat_in > _SHORTEST_S:
                continue
            call = _calls.heartbeat(session.run_id, session.epoch)
            try:
                drive(session.call(call, _outcomes.Held, patience=Patience(session.lease_s / 3)), session.blocking)
            except e.RunNotHeld as error:
                session.lose(error)
            except e.StepgrantError as error:
                if not self.quiet and not self._stopped.wait(_SHORTEST_S) and self._failing.again():
                    _log.warning("run %s: the lease could not be renewed: %s", session.run_id, error)
            else:
                gone = self._failing.over()
                if gone is not None:
                    _log.warning("run %s: the lease is renewed again, after %.0f s", session.run_id, gone)
        if session.lost is not None and not self.quiet:
            _log.warning("run %s: this process does not hold it any more (%s)", session.run_id, session.lost.code)
