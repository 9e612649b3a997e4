"""A run that came to its end and was erased: by an operator, and another one by retention."""

from __future__ import annotations

from fakes.hand import Hand, with_limits
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.sweep import sweep

ERASED_TYPES = frozenset(
    {"run_opened", "step_prepared", "decision", "grant_issued", "grant_revoked", "run_ended", "run_erased"}
)
DAY_MS = 86_400_000


async def erased_life(hand: Hand) -> str:
    """Live it; the id of the run that an operator erased."""
    run = await _ended(hand, "invoice")
    await erase_run(hand.ports, hand.operator, run)
    return run


async def kept_life(hand: Hand) -> str:
    """The same, erased because its time of keeping was over."""
    run = await _ended(hand, "invoice")
    hand.clock.tick(30 * DAY_MS)
    await sweep(with_limits(hand.ports, kept_ms={"completed": 30 * DAY_MS}))
    return run


async def _ended(hand: Hand, key: str) -> str:
    run = str((await hand.open(key, input_bytes=b'{"order":991}'))["run"])
    await hand.begin(run, "s1")
    await end(hand.ports, hand.agent(), run, 1, "completed", Result(b'{"paid":true}'), hand.request())
    return run
