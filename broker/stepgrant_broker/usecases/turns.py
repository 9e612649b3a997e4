"""Turns: who lost a race for a run waits in line instead of racing again, and who comes meanwhile stands behind.

Calls of one run decide side by side and the commit lets one of them win, which is right for the few that most runs have
at once. An agent with many threads would lose so many races that some of its calls run out of tries. A line makes it
fair, within this replica; between replicas the tries remain.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias

Place: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    people: int = 0


class Turns:
    """The lines in front of runs, by (tenant, run). A run without a race has none."""

    def __init__(self) -> None:
        self._lines: dict[Place, _Line] = {}

    def is_waited_for(self, place: Place) -> bool:
        """True while somebody has a turn there, or waits for one."""
        return place in self._lines

    async def take(self, place: Place) -> None:
        """Wait for the turn; `give` ends it."""
        line = self._lines.setdefault(place, _Line())
        line.people += 1
        try:
            await line.lock.acquire()
        except BaseException:
            self._leave(place, line)
            raise

    def give(self, place: Place) -> None:
        """End the turn."""
        line = self._lines[place]
        line.lock.release()
        self._leave(place, line)

    def _leave(self, place: Place, line: _Line) -> None:
        line.people -= 1
        if line.people == 0:
            del self._lines[place]
