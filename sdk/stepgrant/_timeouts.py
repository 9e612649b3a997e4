"""How long to wait for what, and the pauses between tries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stepgrant._errors import ConfigurationError

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds.

    Args:
        call: one exchange with the broker, from connecting to the last byte of the answer.
        broker: how long a call is tried again while the broker cannot be reached or says "not now".
        lease: how long to wait for another holder's lease to lapse. A holder that is alive renews it for ever.
        prior_credential: how long a start waits for an older credential to die. The longest grant lives 300 s.
        reconcile: how long a reconcile hook may look again until its "not done" counts.
    """

    call: float = 10.0
    broker: float = 30.0
    lease: float = 120.0
    prior_credential: float = 330.0
    reconcile: float = 330.0

    def __post_init__(self) -> None:
        """Raises `ConfigurationError`."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise ConfigurationError(f"Timeouts({name}=) is a number of seconds, 0 or more")
        if self.call <= 0:
            raise ConfigurationError("Timeouts(call=) is more than 0 seconds")


class Patience:
    """Counts down one wait: jittered, growing pauses that never reach beyond the end. `clock`: in seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sent_at = clock()
        """When the newest try went out."""
        self._end = self.sent_at + seconds
        self._pause = _FIRST_PAUSE_S

    @property
    def left(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self._end - self._clock())

    def shorten(self, seconds: float) -> None:
        """End in `seconds` at the latest."""
        self._end = min(self._end, self._clock() + seconds)

    def pause(self, told: float | None) -> float | None:
        """How long to wait before the next try; None if there is no time for one. `told`: what the broker asked for."""
        jittered = self._pause * (0.5 + random.random() / 2)  # noqa: S311  # spreads load, protects nothing
        self._pause = min(_LONGEST_PAUSE_S, self._pause * 2)
        wait = jittered if told is None else max(told, 0.0) + jittered / 4
        return wait if wait < self.left else None
