"""The sweeper's rounds: lapsed leases are parked, credentials outside taken back, expired rows dropped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.usecases.sweep import Sweeping, Swept, sweep
from stepgrant_broker.wiring.rounds import Rounds

if TYPE_CHECKING:
    from stepgrant_broker.api.metrics import Metrics
    from stepgrant_broker.usecases.context import Ports

ALARM_MS: Final = 60_000
"""A credential outside that could not be taken back for so long is told to people, once."""

MEASURED_S: Final = 15.0
"""How often it counts what waits: to count all parked runs may take a tenth of a second of a reader."""

_log = structlog.get_logger(__name__)


class Sweeper(Rounds):
    """Sweeps every `every_ms`."""

    def __init__(self, ports: Ports, metrics: Metrics, every_ms: int) -> None:
        super().__init__("sweeper", every_ms)
        self._ports = ports
        self._metrics = metrics
        self._memory = Sweeping()
        self._measure_at = time.monotonic()
        self._alarmed = False
        self._unknown: set[str] = set()

    async def round(self) -> int:
        """One round; how many runs were parked. Raises what the store raises, and `SignerUnavailable`.

        Wrapping keys that others made are looked for first: without them runs cannot be read, and no round of
        sweeping would be whole. That they cannot be had now, or that nothing can be counted, keeps nothing waiting; it
        is raised in the end.
        """
        unseen = await self._look_for_keys()
        swept = await sweep(self._ports, self._memory)
        # What was found is told in any case: an alarm must not freeze because something else failed.
        self._tell(swept)
        uncounted = await self._measure()
        if swept.fault is not None:
            raise swept.fault
        self._metrics.sweep_done()
        for fault in (unseen, uncounted):
            if fault is not None:
                raise fault
        return swept.parked

    async def _measure(self) -> StepgrantFault | None:
        """Count what waits, now and then. That it cannot be counted keeps nothing waiting either."""
        if time.monotonic() < self._measure_at:
            return None
        self._measure_at = time.monotonic() + MEASURED_S
        try:
            now = await self._ports.reads.now()
            found = await self._ports.reads.backlog(now)
        except StepgrantFault as fault:
            return fault
        oldest_ms = 0 if found.oldest_at is None else max(0, now - found.oldest_at)
        self._metrics.backlog(found.entries, oldest_ms / 1000, found.parked, found.asked)
        return None

    async def _look_for_keys(self) -> StepgrantFault | None:
        try:
            await self._ports.wrap.refresh()
        except StepgrantFault as fault:
            return fault
        return None

    async def stop(self) -> None:
        """As `Rounds`, and what was still under way at issuers."""
        await super().stop()
        await self._memory.outside.stop()

    def _tell(self, swept: Swept) -> None:
        self._metrics.swept(swept.parked)
        self._metrics.leases(swept.confirmed, swept.unconfirmed, swept.oldest_ms / 1000)
        for one in swept.failed:
            self._metrics.sweep_failed(one.work)
            _log.error("sweep_failed", work=one.work, run=one.run, code=one.code, kind=one.kind)
        for issuer in sorted(self._memory.outside.unknown - self._unknown):
            _log.error("issuer_not_configured", issuer=issuer, fix="see `stepgrant doctor`")
        self._unknown |= self._memory.outside.unknown
        if swept.oldest_ms > ALARM_MS and not self._alarmed:
            _log.error("leases_not_confirmed", unconfirmed=swept.unconfirmed, oldest_s=swept.oldest_ms // 1000)
        self._alarmed = swept.oldest_ms > ALARM_MS

    def count_failure(self, kind: str) -> None:
        """As `Rounds`."""
        self._metrics.store_error(kind)
