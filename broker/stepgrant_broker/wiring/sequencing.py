"""The sequencer's task: again and again, whatever goes wrong in one; a damaged tree is told, and stays."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.domain.errors import StepgrantFault

if TYPE_CHECKING:
    from stepgrant_broker.api.metrics import Metrics
    from stepgrant_broker.ledger.sequencer import Sequencer

LONGEST_WAIT_MS: Final = 30_000

_log = structlog.get_logger(__name__)


class Sequencing:
    """Runs a round every `every_ms`; after a failure it waits twice as long each time, up to half a minute."""

    def __init__(self, sequencer: Sequencer, metrics: Metrics, every_ms: int) -> None:
        self._sequencer = sequencer
        self._metrics = metrics
        self._every_ms = every_ms
        self._wait_ms = every_ms
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="stepgrant-sequencer")

    async def stop(self) -> None:
        """End; a round under way is cancelled, which undoes nothing that is committed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._wait_ms / 1000)
            try:
                integrated = await self._sequencer.round()
            except StepgrantFault as fault:
                self._failed(fault.code, fault)
            except Exception as error:  # noqa: BLE001 - a damaged tree must not end the broker's other work
                self._failed("internal", error)
            else:
                self._wait_ms = self._every_ms
                counted = self._sequencer.counted
                self._metrics.log(integrated, 0 if counted is None else counted.size)

    def _failed(self, code: str, error: Exception) -> None:
        self._wait_ms = min(2 * self._wait_ms, max(LONGEST_WAIT_MS, self._every_ms))
        self._metrics.log_failed(type(error).__name__)
        # The type only: an unexpected error's text may hold anything.
        _log.error("sequencing_failed", code=code, kind=type(error).__name__, next_in_ms=self._wait_ms)
