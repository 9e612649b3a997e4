"""How fast the sequencer goes: as fast as it can while it is alone, and stepping back while others commit.

A grant's commit shares the store's one writer, and the interpreter, with the sequencer. So while others commit, batches
are short, and between two of them it rests for a multiple of what the last one took: a grant may find one short batch
before it, and most find none. A backlog (after a restore, an upgrade, a long stand-still) then takes longer, and nobody
waits for it. Alone, nothing is gained by resting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

ALONE: Final = 256
"""Leaves in a batch while nobody else commits."""
BESIDE: Final = 64
"""Leaves in a batch while others do."""
RESTS: Final = 2
"""Then it rests so many times as long as the batch took."""
QUIET_S: Final = 0.25
"""Others count as gone when they have not committed for so long."""
LONGEST_S: Final = 0.1


class Pace:
    """`commits` counts the durable transactions of others. `monotonic` and `sleep`: the process's own."""

    def __init__(self, commits: Callable[[], int], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._commits = commits
        self._monotonic = monotonic
        self._seen = commits()
        self._others_at = -QUIET_S
        self._began = monotonic()

    def enter(self) -> None:
        """A pass begins; what was committed since the last one says nothing of now."""
        self._seen = self._commits()

    def batch(self) -> int:
        """Leaves for the batch that begins now."""
        self._began = self._monotonic()
        return BESIDE if self._beside() else ALONE

    async def rest(self) -> None:
        """Between two batches."""
        if self._beside():
            await asyncio.sleep(min(LONGEST_S, RESTS * (self._monotonic() - self._began)))

    def _beside(self) -> bool:
        commits, now = self._commits(), self._monotonic()
        if commits != self._seen:
            self._seen, self._others_at = commits, now
        return now - self._others_at < QUIET_S
