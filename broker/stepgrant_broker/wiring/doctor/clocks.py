"""How far another clock is from this host's, when all that is known is between which moments it was read."""

from __future__ import annotations


def apart(there: float, before: float, after: float) -> float:
    """How far `there` is ahead of this host's clock (negative: behind), in the unit of the three.

    `before` and `after`: this host's clock before it asked and after it was answered. However long that took, a clock
    that shows a moment between the two may be right.
    """
    return max(there - after, 0) + min(there - before, 0)
