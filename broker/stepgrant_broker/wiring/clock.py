"""Time and randomness of this process.

Rules:
* Within a process time never goes backwards: leases and expiries are compared with it, and a clock that was set back
  would bring dead credentials to life. A step forward of the system's clock is followed at once, so that a machine that
  slept knows it.
* All randomness is the system's CSPRNG.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from stepgrant_broker.domain import ids
from stepgrant_broker.domain.ports import Clock

NS_PER_MS: Final = 1_000_000
ULID_ENTROPY: Final = 10


class SystemClock:
    """The system's time, made monotone: wall time where it moves forward, monotonic time where it does not."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._ahead = wall_ns() - monotonic_ns()

    def now(self) -> int:
        """Milliseconds since the epoch; never less than before, in any thread."""
        with self._lock:
            monotonic = self._monotonic_ns()
            self._ahead = max(self._ahead, self._wall_ns() - monotonic)
            return (monotonic + self._ahead) // NS_PER_MS


class AdvancingClock:
    """A clock that a test moves forward; it runs on by itself."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._offset = 0

    @property
    def offset_ms(self) -> int:
        """How far it was moved."""
        return self._offset

    def now(self) -> int:
        """The base's time and what was added."""
        return self._base.now() + self._offset

    def advance(self, ms: int) -> None:
        """Move it forward. Raises `ValueError` for going back."""
        if ms < 0:
            raise ValueError("a clock does not go back")
        self._offset += ms


class SystemIds:
    """Identifiers and random bytes from the system."""

    def ulid(self, now: int) -> str:
        """A fresh ULID for this time (ms)."""
        return ids.ulid(now, os.urandom(ULID_ENTROPY))

    def random(self, size: int) -> bytes:
        """`size` random bytes."""
        return os.urandom(size)
