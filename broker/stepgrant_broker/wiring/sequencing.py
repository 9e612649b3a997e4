"""The sequencer's rounds: what waits gets its place in the log. A damaged tree is told in each round, and stays.

Rules:
* While the sequencer is behind, one round follows the other without a wait: it steps back for grants by itself.
* Witnesses see heads beside the rounds, one head at a time: while one of them is silent, entries go on into the log.
  What fails there is told by the next round that finds it done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stepgrant_broker.wiring.rounds import Rounds

if TYPE_CHECKING:
    from stepgrant_broker.api.metrics import Metrics
    from stepgrant_broker.ledger.sequencer import Sequencer


class Sequencing(Rounds):
    """Integrates every `every_ms`."""

    def __init__(self, sequencer: Sequencer, metrics: Metrics, every_ms: int) -> None:
        super().__init__("sequencer", every_ms)
        self._sequencer = sequencer
        self._metrics = metrics
        self._showing: asyncio.Task[None] | None = None

    async def round(self) -> int:
        """As many rounds as it is behind; how many entries were integrated.

        Raises what the store, the signer and the tree raise.
        """
        total = 0
        while True:
            integrated = await self._sequencer.integrate()
            counted = self._sequencer.counted
            self._metrics.log(integrated, 0 if counted is None else counted.size)
            total += integrated
            self._show()
            if not self._sequencer.behind:
                return total

    def _show(self) -> None:
        """Raises what went wrong the last time."""
        last = self._showing
        if last is not None and not last.done():
            return
        self._showing = asyncio.create_task(self._sequencer.show(), name="stepgrant-witnesses")
        if last is not None:
            last.result()

    async def stop(self) -> None:
        """As `Rounds`, and whoever is asked is not waited for."""
        await super().stop()
        showing, self._showing = self._showing, None
        if showing is not None:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)

    def count_failure(self, kind: str) -> None:
        """As `Rounds`."""
        self._metrics.log_failed(kind)
