"""The sweeper: lapsed leases are parked and expired rows dropped, again and again, whatever goes wrong in one round."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.usecases.sweep import sweep

if TYPE_CHECKING:
    from stepgrant_broker.api.metrics import Metrics
    from stepgrant_broker.usecases.context import Ports

LONGEST_WAIT_MS: Final = 30_000
ALARM_MS: Final = 60_000
"""A credential outside that could not be taken back for so long is told to people, once."""

_log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps every `every_ms`; after a failure it waits twice as long each time, up to half a minute."""

    def __init__(self, ports: Ports, metrics: Metrics, every_ms: int) -> None:
        self._ports = ports
        self._metrics = metrics
        self._every_ms = every_ms
        self._wait_ms = every_ms
        self._task: asyncio.Task[None] | None = None
        self._alarmed = False
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="stepgrant-sweeper")

    async def stop(self) -> None:
        """End; a round under way is cancelled, which undoes nothing that is committed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def round(self) -> int:
        """One round; how many runs were parked. Raises what the store raises."""
        swept = await sweep(self._ports)
        self._metrics.swept(swept.parked)
        self._metrics.leases(swept.confirmed, swept.unconfirmed, swept.oldest_ms / 1000)
        if swept.oldest_ms > ALARM_MS and not self._alarmed:
            _log.error("leases_not_confirmed", unconfirmed=swept.unconfirmed, oldest_s=swept.oldest_ms // 1000)
        self._alarmed = swept.oldest_ms > ALARM_MS
        return swept.parked

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
        self._metrics.store_error(type(error).__name__)
        # The type only: an unexpected error's text may hold anything.
        _log.warning("sweep_failed", code=code, kind=type(error).__name__, next_in_ms=self._wait_ms)
