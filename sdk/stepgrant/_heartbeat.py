"""The heartbeat: a daemon thread that keeps the lease while a tool, a model call or an event loop takes its time.

It is a thread in both faces, because a loop that a tool blocks could not renew anything. Whatever the run's own calls
renew it leaves out. What it learns (fenced, ended, quarantined) it puts into the session, where every call finds it.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._flows import drive
from stepgrant._session import Session
from stepgrant._timeouts import Patience

_log = logging.getLogger("stepgrant")
_SHORTEST_S: Final = 0.02


class Heartbeat:
    """Beats from `start` until `stop`."""

    def __init__(self, session: Session) -> None:
        self.quiet = False
        """Set while the run is being ended: that a beat then finds it ended is no news."""
        self._session = session
        self._stopped = threading.Event()
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
                if not self.quiet and not self._stopped.wait(_SHORTEST_S):
                    _log.warning("run %s: the lease could not be renewed (%s)", session.run_id, error.code)
        if session.lost is not None and not self.quiet:
            _log.warning("run %s: this process does not hold it any more (%s)", session.run_id, session.lost.code)
