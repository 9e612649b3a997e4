"""What a sweeper could not do lately: it rests for a while, so that it neither fills each round nor each log.

Rules:
* Each failure doubles the rest, from `REST_MS` to `LONGEST_MS`; a success forgets it.
* Only memory of this process: after a restart everything is tried at once. `MOST` bounds it, the oldest go first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Final, TypeAlias

REST_MS: Final = 2_000
LONGEST_MS: Final = 60_000
MOST: Final = 10_000

Name: TypeAlias = tuple[str, str, str]
"""What was tried (`park`, `erase`, `take_back`), the tenant, and the run or grant."""


@dataclass(frozen=True, slots=True)
class _Missed:
    number: int
    rest_ms: int
    until: int


class Misses:
    """Names of what failed. Times are the store's (ms)."""

    def __init__(self) -> None:
        self._missed: dict[Name, _Missed] = {}
        self._numbers = count(1)

    def rests(self, name: Name, now: int) -> bool:
        """True while it is left alone."""
        missed = self._missed.get(name)
        return missed is not None and missed.until > now

    def resting(self, work: str, now: int) -> int:
        """How many of this work rest: so many more have to be read to find as many that do not."""
        return sum(1 for name, missed in self._missed.items() if name[0] == work and missed.until > now)

    def tried(self, name: Name) -> int:
        """The larger, the later it was tried; 0: it never failed."""
        missed = self._missed.get(name)
        return 0 if missed is None else missed.number

    def note(self, name: Name, now: int, *, rest: bool = True) -> None:
        """It failed. Without `rest` it is only tried later than others."""
        before = self._missed.pop(name, None)
        rest_ms = before.rest_ms if before is not None else 0
        if rest:
            rest_ms = min(max(REST_MS, 2 * rest_ms), LONGEST_MS)
        self._missed[name] = _Missed(next(self._numbers), rest_ms, now + rest_ms if rest else now)
        if len(self._missed) > MOST:
            del self._missed[next(iter(self._missed))]

    def forget(self, name: Name) -> None:
        """It is done, or nothing is left to do."""
        self._missed.pop(name, None)
