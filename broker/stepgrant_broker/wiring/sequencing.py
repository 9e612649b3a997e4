"""The sequencer's rounds: what waits gets its place in the log. A damaged tree is told in each round, and stays.

While the sequencer is behind, one round follows the other without a wait: it steps back for grants by itself.
"""

from __future__ import annotations

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

    async def round(self) -> int:
        """As many rounds as it is behind; how many entries were integrated.

        Raises what the store, the signer and the tree raise.
        """
        total = 0
        while True:
            integrated = await self._sequencer.round()
            counted = self._sequencer.counted
            self._metrics.log(integrated, 0 if counted is None else counted.size)
            total += integrated
            if not self._sequencer.behind:
                return total

    def count_failure(self, kind: str) -> None:
        """As `Rounds`."""
        self._metrics.log_failed(kind)
