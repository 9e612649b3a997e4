"""A run whose call ids were lost in a crash, through the real use cases: every entry that comes of it occurs in it."""

from __future__ import annotations

from typing import Any

from fakes.hand import Hand, allow
from fakes.world import call
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.usecases.decide_duplicate import decide_duplicate
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.reconcile import reconcile_by_person

LOST_TYPES = frozenset(
    {
        "run_opened", "run_resumed", "run_ended", "step_prepared", "decision", "grant_issued", "grant_redeemed",
        "grant_revoked", "step_replayed", "step_completed", "step_in_doubt", "step_reconciled", "step_adopted",
        "duplicate_decided",
    }
)  # fmt: skip


async def lost_life(hand: Hand) -> str:
    """Live it; the run's id."""
    run = str((await hand.open("orders"))["run"])
    await used(hand, run, "call_1", 1)
    for number in (2, 3, 4):
        await used(hand, run, f"call_{number}", number)
        await hand.complete(run, f"call_{number}")
    hand.clock.tick(hand.ports.limits.lease_ms + 400_000)
    await hand.open("orders", who="k2")
    await _doubt(hand, run)
    await _duplicates(hand, run)
    await end(hand.ports, hand.agent("k2"), run, 2, "completed", Result(None), hand.request())
    return run


async def used(hand: Hand, run: str, step: str, order: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    """A call for an order, whose credential is used."""
    resource = f"order/{order}"
    answer = await hand.begin(run, step, resource=resource, id_source=IdSource.CALL_ID, **more)
    await hand.redeem(answer["grant"]["jti"], rid=step, digest=call(resource=resource).digest)
    return answer


async def again(hand: Hand, run: str, step: str, order: int, **grant: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    """The call for an order under another id, in the second epoch."""
    return await hand.begin(
        run, step, allow(**grant), who="k2", epoch=2, resource=f"order/{order}", id_source=IdSource.CALL_ID
    )


async def _doubt(hand: Hand, run: str) -> None:
    assert (await again(hand, run, "call_5", 1))["outcome"] == "in_doubt"
    said = Verdict(1, "not_done", Result(None), evidence="no charge in the statement")
    await reconcile_by_person(hand.ports, hand.operator, run, "call_1", said, hand.request())
    answer = await again(hand, run, "call_5", 1)
    assert (answer["outcome"], answer["step"], answer["attempt"]) == ("run", "call_1", 2)
    await hand.complete(run, "call_1", epoch=2, attempt=2, who="k2")


async def _duplicates(hand: Hand, run: str) -> None:
    assert (await again(hand, run, "call_6", 2, duplicate="replay"))["step"] == "call_2"
    for step, order, verdict in (("call_7", 3, "replay"), ("call_8", 4, "run")):
        asked = await again(hand, run, step, order)
        assert asked == {
            "outcome": "suspected_duplicate", "step": step, "of": f"call_{order}", "options": ["replay", "run"]
        }  # fmt: skip
        await decide_duplicate(
            hand.ports, hand.operator, run, step, verdict=verdict, note=f"{verdict} it", request=hand.request()
        )
        assert (await again(hand, run, step, order))["outcome"] == verdict
    await hand.complete(run, "call_8", epoch=2, who="k2")


async def crashed(broker: Hand) -> None:
    """The process is gone, another one resumes; what the old one held is dead by then."""
    broker.clock.tick(broker.ports.limits.lease_ms + 400_000)
    await broker.open(who="k2")


async def opened(broker: Hand) -> str:
    """A run."""
    return str((await broker.open())["run"])


async def left_completed(broker: Hand) -> str:
    """A run of epoch 2, in whose first epoch `old` was completed."""
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await broker.complete(run, "old")
    await crashed(broker)
    return run
