"""A call whose id was lost: what follows is told of the step that the broker answers with, not of the one asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, Target, faces
from scripted import Reply, ScriptedBroker, granted, scripted
from stepgrant import errors

DOUBT: dict[str, Any] = {
    "outcome": "in_doubt", "step": "lost", "tool": "charge", "attempt": 2, "why": "outcome_unknown", "since": 1,
    "options": ["reconcile", "person"], "reconciles": 0, "idempotency_key": "k",
}  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


def keys(broker: ScriptedBroker, verb: str) -> list[str]:
    return [seen.path.split("/")[5] for seen in broker.calls(verb)]


@faces
@pytest.mark.parametrize(
    ("raised", "verb"), [(None, "complete"), (ValueError("?"), "fail"), (KeyboardInterrupt(), "suspend")]
)
async def test_the_outcome_is_told_of_the_step_that_was_answered(
    face: Face, broker: ScriptedBroker, raised: BaseException | None, verb: str
) -> None:
    broker.will("begin", Reply(granted("lost", 2)))
    target = Target("ok" if raised is None else raised)
    tool = face.tool(lambda: target.act(), name="charge")  # noqa: PLW0108  # needs a signature
    if raised is None:
        async with face.run(**broker.at()):
            assert await face.call(tool.with_id("new")) == "ok"
    else:
        with pytest.raises(type(raised)):
            async with face.run(**broker.at()):
                await face.call(tool.with_id("new"))

    assert keys(broker, "begin") == ["new"]
    assert keys(broker, verb) == ["lost"]
    assert broker.calls(verb)[0].body["attempt"] == 2


@faces
async def test_what_runs_inside_is_of_the_step_that_was_answered(face: Face, broker: ScriptedBroker) -> None:
    inner = face.tool(lambda: 1, name="inner")
    seen: list[str] = []

    async def outer() -> int:
        seen.append(stepgrant.current_step().key)
        result: int = await face.call(inner)
        return result

    broker.will("begin", Reply(granted("lost")))
    async with stepgrant.run("job", agent="agent", **broker.at()):
        assert await stepgrant.tool(name="outer")(outer).with_id("new")() == 1

    assert keys(broker, "begin") == ["new", "lost~inner-1"]
    assert seen == ["lost"]


async def test_a_withheld_result_names_the_step_that_was_answered(broker: ScriptedBroker) -> None:
    broker.will("begin", Reply(granted("lost")))

    @stepgrant.tool
    def leak() -> str:
        return stepgrant.current_credential().field("token")

    with stepgrant.run("job", agent="agent", **broker.at()), pytest.raises(errors.SecretInResult) as caught:
        leak.with_id("new")()

    assert caught.value.step == "lost"
    assert keys(broker, "complete") == ["lost"]


@faces
async def test_the_hook_settles_the_step_that_was_answered(face: Face, broker: ScriptedBroker) -> None:
    looked: list[str] = []

    def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
        looked.append(step.key)
        return stepgrant.done("found")

    replay = {"outcome": "replay", "step": "lost", "attempt": 2, "result": "found"}
    broker.will("begin", Reply(DOUBT), Reply(granted("lost~reconcile~1", effect="read")), Reply(replay))
    target = Target()
    tool = face.tool(lambda: target.act(), name="charge", reconcile=look)  # noqa: PLW0108  # needs a signature
    async with face.run(**broker.at()):
        assert await face.call(tool.with_id("new")) == "found"

    assert looked == ["lost"]
    assert keys(broker, "begin") == ["new", "lost~reconcile~1", "new"]
    assert keys(broker, "reconcile") == ["lost"]
    assert broker.calls("reconcile")[0].body["via"] == "lost~reconcile~1"
    assert target.reached == 0


@faces
async def test_the_hook_is_not_run_for_a_call_that_another_steps_doubt_blocks(
    face: Face, broker: ScriptedBroker
) -> None:
    """With this call's arguments it would look for another effect, and settle the doubt by what it found."""

    def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
        pytest.fail(f"looked for {step.key}")

    broker.will("begin", Reply({**DOUBT, "blocked": True}))
    target = Target()
    tool = face.tool(lambda: target.act(), name="charge", reconcile=look)  # noqa: PLW0108  # needs a signature
    with pytest.raises(errors.InDoubt, match="waits for that") as caught:
        async with face.run(**broker.at()):
            await face.call(tool.with_id("new"))

    assert (caught.value.step, caught.value.attempt, caught.value.blocked) == ("lost", 2, True)
    assert broker.verbs == ["runs", "begin", "run.park"]
    assert broker.calls("run.park")[0].body["reason"] == "in_doubt"
    assert target.reached == 0


@faces
async def test_a_run_whose_call_may_be_a_repetition_is_parked_for_a_person(face: Face, broker: ScriptedBroker) -> None:
    asked = {"outcome": "suspected_duplicate", "step": "new", "of": "old", "options": ["replay", "run"]}
    broker.will("begin", Reply(asked))
    tool = face.tool(lambda: 1, name="charge")
    with pytest.raises(errors.SuspectedDuplicate) as caught:
        async with face.run(**broker.at()):
            await face.call(tool.with_id("new"))

    assert (caught.value.step, caught.value.of, caught.value.options) == ("new", "old", ("replay", "run"))
    assert broker.calls("run.park")[0].body["reason"] == "in_doubt"


@faces
async def test_advice_names_the_step_that_was_answered(face: Face, broker: ScriptedBroker) -> None:
    run = {"outcome": "run", "step": "lost", "attempt": 2}
    replay = {"outcome": "replay", "step": "lost", "attempt": 2, "result": None}
    broker.will("prepare", Reply(run), Reply(replay), Reply(DOUBT))
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()):
        advice = [await face.call(tool.with_id("new").prepare) for _ in range(3)]

    assert [one.step for one in advice] == ["lost"] * 3
    assert {seen.body["id_source"] for seen in broker.calls("prepare")} == {"call_id"}


async def test_calls_of_other_tools_say_which_kind_of_id_they_have(broker: ScriptedBroker) -> None:
    async def act() -> int:
        return 1

    with stepgrant.run("job", agent="agent", **broker.at()):
        stepgrant.guard_call("tracker.star", {}, lambda: 1, call_id="toolu_1")
        await stepgrant.aguard_call("tracker.star", {}, act, call_id="toolu_2")
        stepgrant.guard_call("tracker.star", {}, lambda: 1, step_id="mine")
        with pytest.raises(errors.ConfigurationError, match="a step_id or a call_id, not both"):
            stepgrant.guard_call("tracker.star", {}, lambda: 1, step_id="mine", call_id="toolu_1")

    assert keys(broker, "begin") == ["toolu_1", "toolu_2", "mine"]
    sources = [seen.body.get("id_source", "explicit") for seen in broker.calls("begin")]
    assert sources == ["call_id", "call_id", "explicit"]
