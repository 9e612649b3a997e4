"""Work that a broker does again and again beside its calls: one round, a wait, the next, whatever goes wrong in one.

Rules:
* The first round comes after the first wait: a broker that starts answers first.
* After a failure the wait doubles each time, up to half a minute; a good round brings it back.
* One broken round ends no later ones, and stopping cancels the round under way, which undoes nothing committed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

import structlog

from stepgrant_broker.domain.errors import StepgrantFault

LONGEST_WAIT_MS: Final = 30_000

_log = structlog.get_logger(__name__)


class Rounds(ABC):
    """A task that works every `every_ms`. `failures` counts the rounds that raised.

    Args:
        name: of the task (`stepgrant-<name>`), and what `round_failed` says in the log.
        every_ms: the wait between rounds (milliseconds).
    """

    def __init__(self, name: str, every_ms: int) -> None:
        self._name = name
        self._every_ms = every_ms
        self._wait_ms = every_ms
        self._task: asyncio.Task[None] | None = None
        self.failures = 0

    @abstractmethod
    async def round(self) -> int:
        """One round; how much it did. Raises what the store raises."""

    @abstractmethod
    def count_failure(self, kind: str) -> None:
        """Count a failed round in the metrics; `kind` is the exception's type."""

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"stepgrant-{self._name}")

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._wait_ms / 1000)
            try:
                await self.round()
            except StepgrantFault as fault:
                self._failed(fault.code, fault)
            except Exception as error:  # noqa: BLE001 - a bug in one round must not end all later ones
                self._failed("internal", error)
            else:
                self._wait_ms = self._every_ms

    def _failed(self, code: str, error: Exception) -> None:
        self.failures += 1
        self._wait_ms = min(2 * self._wait_ms, max(LONGEST_WAIT_MS, self._every_ms))
        kind = type(error).__name__
        self.count_failure(kind)
        # The type only: an unexpected error's text may hold anything.
        _log.error("round_failed", work=self._name, code=code, kind=kind, next_in_ms=self._wait_ms)
