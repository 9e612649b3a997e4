"""Calls side by side in one task of a graph: none leaves with an exception while another is in flight.

`ToolNode.ainvoke` gathers its calls, and `asyncio.gather` lets the others run on in the background when one raises. The
graph would end, the run be given back, and an effect in flight have nobody who could record it. LangGraph's threads and
the tasks of `create_agent` are waited for by LangGraph itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["Siblings"]


class _Task:
    """One task of a graph. `flying`: its calls that have not ended."""

    def __init__(self) -> None:
        self.flying = 0
        self.landed = asyncio.Event()


class Siblings:
    """Knows which calls of which task are in flight. For one event loop at a time."""

    def __init__(self) -> None:
        self._tasks: Final[dict[tuple[int, str], _Task]] = {}

    @asynccontextmanager
    async def flight(self, task_id: str | None) -> AsyncIterator[None]:
        """One call's time. An exception leaves only when the siblings have landed, too; a cancellation at once."""
        if task_id is None:
            yield
            return
        key = (id(asyncio.get_running_loop()), task_id)
        task = self._tasks.setdefault(key, _Task())
        task.flying += 1
        try:
            yield
        except Exception:
            self._land(key, task)
            await task.landed.wait()
            raise
        except BaseException:
            self._land(key, task)
            raise
        self._land(key, task)

    def _land(self, key: tuple[int, str], task: _Task) -> None:
        task.flying -= 1
        if not task.flying:
            task.landed.set()
            if self._tasks.get(key) is task:
                del self._tasks[key]
