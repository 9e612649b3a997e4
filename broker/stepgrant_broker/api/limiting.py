"""How often one caller may do something: a token bucket for each name, in this process.

The memory is bounded: the name that was not seen for longest is forgotten, which only ever forgives.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

NAMES_KEPT: Final = 10_000


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class Buckets:
    """`burst` at once, `per_s` in the long run, for each name."""

    def __init__(self, burst: int, per_s: float) -> None:
        if burst < 1 or per_s <= 0:
            raise ValueError("a limit lets at least one through, and more with time")
        self._burst = float(burst)
        self._per_s = per_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, now_s: float) -> float:
        """Take one. Returns 0, or the seconds until one is there (and takes none)."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, now_s)
            if len(self._buckets) > NAMES_KEPT:
                self._buckets.popitem(last=False)
        # A clock that jumps back gives nothing and takes nothing.
        elapsed = max(0.0, now_s - bucket.at_s)
        bucket.level = min(self._burst, bucket.level + elapsed * self._per_s)
        bucket.at_s = now_s
        self._buckets.move_to_end(name)
        if bucket.level < 1:
            return (1 - bucket.level) / self._per_s
        bucket.level -= 1
        return 0.0
