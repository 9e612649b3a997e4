"""A clock that stands still until a test moves it, identifiers that count, and failpoints that a test arms."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from stepgrant_broker.domain.ids import ulid


@dataclass
class StandingClock:
    """`Clock` for tests: milliseconds that only `tick` moves."""

    ms: int = 1_800_000_000_000

    def now(self) -> int:
        """The present."""
        return self.ms

    def tick(self, ms: int) -> None:
        """Let time pass."""
        self.ms += ms


class CountingIds:
    """`Ids` for tests: ULIDs in order, real randomness."""

    def __init__(self) -> None:
        self._count = 0

    def ulid(self, now: int) -> str:
        """The next one."""
        self._count += 1
        return ulid(now, self._count.to_bytes(10, "big"))

    def random(self, size: int) -> bytes:
        """From the system."""
        return os.urandom(size)


@dataclass
class ArmedFailpoints:
    """`Failpoints` for tests: a callable for each armed point; all others do nothing."""

    armed: dict[str, Callable[[], None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def hit(self, point: str) -> None:
        """Called at a named place."""
        self.seen.append(point)
        act = self.armed.get(point)
        if act is not None:
            act()
