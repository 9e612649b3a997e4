"""Refusals that name their call, where a real broker cannot be made to answer so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgrant
from faces import Face, Target, call_once, faces
from scripted import Lost, Reply, ScriptedBroker, problem, scripted
from stepgrant import errors

DOUBT = {
    "outcome": "in_doubt", "step": "charge-1", "tool": "charge", "attempt": 1, "why": "fenced", "options": ["reconcile"]
}  # fmt: skip
LARGE = problem("too_large", 413, detail="the action is over 9 bytes")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


@faces
@pytest.mark.parametrize(
    "look",
    [problem("unknown_step", 404), problem("stale_epoch", 409), Lost(), Reply({"key": "charge-1", "state": "started"})],
    ids=["unknown", "stale", "lost", "an older broker"],
)
async def test_a_drift_that_cannot_be_looked_at_is_named_all_the_same(
    face: Face, broker: ScriptedBroker, look: Reply | Lost
) -> None:
    broker.will("begin", problem("step_drift", 409, detail="this step was started with another action", field="action"))
    broker.will("step", *[look] * (1 if isinstance(look, Reply) else 2), problem("unknown_step", 404))
    with pytest.raises(errors.StepDrift) as caught:
        await call_once(face, target := Target(), broker.at())
    assert (caught.value.tool, caught.value.step) == ("charge", "charge-1")
    assert (caught.value.differs, caught.value.before) == ("tool, resource or arguments", None)
    assert target.reached == 0


@faces
async def test_the_refusal_of_a_look_names_the_look(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply(DOUBT), LARGE)
    with pytest.raises(errors.BrokerError) as caught:
        await call_once(face, Target(), broker.at(), reconcile=lambda _: stepgrant.not_done())
    assert caught.value.detail == (
        "charge.reconcile (step charge-1~reconcile~1): the action is over 9 bytes; it was not begun"
    )


@faces
async def test_the_drift_of_a_look_names_the_look(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply(DOUBT), problem("step_drift", 409, field="effect"))
    with pytest.raises(errors.StepDrift) as caught:
        await call_once(face, Target(), broker.at(), reconcile=lambda _: stepgrant.not_done())
    assert (caught.value.tool, caught.value.step) == ("charge.reconcile", "charge-1~reconcile~1")
    assert str(caught.value).count("Nothing was done") == 1
