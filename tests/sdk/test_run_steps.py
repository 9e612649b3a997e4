"""Recorded steps: done once, given back, and never with a credential."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

import stepgrant
from faces import Face, faces
from scripted import Lost, Reply, ScriptedBroker, opened, problem, scripted
from stepgrant import errors

RECORDED = {"outcome": "replay", "step": "plan-1", "attempt": 1, "state": "recorded"}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


@faces
async def test_fresh_run_records_without_looking(face: Face, broker: ScriptedBroker) -> None:
    async with face.run(**broker.at()):
        assert await face.step("plan", lambda: {"order": ["b", "a"]}) == {"order": ["b", "a"]}

    assert broker.verbs == ["runs", "record", "run.complete"]
    (seen,) = broker.calls("record")
    assert seen.path == "/v1/runs/run_01scripted/steps/plan-1/record"
    assert seen.body == {
        "epoch": 1, "name": "plan", "args": {}, "result": {"order": ["b", "a"]}, "id_source": "ordinal"
    }  # fmt: skip


@faces
async def test_resumed_run_gets_the_recorded_result(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(resumed=True, epoch=2)))
    broker.will("step", Reply({"key": "plan-1", "state": "recorded", "recorded": True}))
    broker.will("record", Reply({**RECORDED, "result": {"label": "of the first time"}, "withheld": False}))
    async with face.run(**broker.at()):
        assert await face.step("plan", lambda: pytest.fail("it was planned")) == {"label": "of the first time"}

    # The broker compares name and arguments; no result is sent that could be taken for another one.
    assert broker.calls("record")[0].body == {"epoch": 2, "name": "plan", "args": {}, "id_source": "ordinal"}


@faces
async def test_resumed_run_records_what_is_not_there(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(resumed=True, epoch=2)))
    async with face.run(**broker.at()):
        assert await face.step("plan", lambda: [1]) == [1]

    assert broker.verbs == ["runs", "step", "record", "run.complete"]


@faces
async def test_same_id_again_in_one_process(face: Face, broker: ScriptedBroker) -> None:
    async with face.run(**broker.at()):
        assert await face.step("plan", lambda: 1, step_id="plan") == 1
        broker.will("step", Reply({"key": "plan", "state": "recorded"}))
        broker.will("record", Reply({**RECORDED, "result": 1}))
        assert await face.step("plan", lambda: pytest.fail("it was planned"), step_id="plan") == 1


@faces
async def test_other_arguments_are_drift(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(resumed=True)))
    broker.will("step", Reply({"key": "plan-1", "state": "recorded"}))
    broker.will("record", problem("step_drift", 409))
    with pytest.raises(errors.StepDrift):
        async with face.run(**broker.at()):
            await face.step("plan", lambda: pytest.fail("nothing runs"))


@faces
async def test_withheld_result_cannot_be_given_back(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(resumed=True)))
    broker.will("step", Reply({"key": "plan-1", "state": "recorded"}))
    broker.will("record", Reply({**RECORDED, "result": None, "withheld": True}))
    with pytest.raises(errors.ResultWithheld) as caught:
        async with face.run(**broker.at()):
            await face.step("plan", lambda: pytest.fail("nothing runs"))

    assert not isinstance(caught.value, errors.SecretInResult)


@faces
@pytest.mark.parametrize("value", [ValueError("no model"), object()], ids=["raises", "not json"])
async def test_what_has_no_result_is_not_recorded(face: Face, broker: ScriptedBroker, value: Any) -> None:
    def plan() -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises((ValueError, errors.NotJson)):
        async with face.run(**broker.at()):
            await face.step("plan", plan)

    assert broker.calls("record") == []


@faces
async def test_lost_reply_to_record(face: Face, broker: ScriptedBroker) -> None:
    broker.will("record", Lost())
    async with face.run(**broker.at()):
        assert await face.step("plan", lambda: 1) == 1

    first, second = broker.calls("record")
    assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])


async def test_decorated_steps(broker: ScriptedBroker) -> None:
    @stepgrant.step
    def clock() -> float:
        return 5.5

    @stepgrant.step("model", step_id="ask-{topic}")
    async def ask(topic: str, depth: int = 2) -> str:
        return topic * depth

    @stepgrant.step(name="plan")
    def make_plan(goal: str) -> list[str]:
        return [goal]

    async with stepgrant.run("job", agent="agent", **broker.at()):
        assert clock() == 5.5
        assert await ask("ab") == "abab"
        assert make_plan("win") == ["win"]

    bodies = [(seen.path.split("/")[5], seen.body["name"], seen.body["args"]) for seen in broker.calls("record")]
    assert bodies == [
        ("clock-1", "clock", {}),
        ("ask-ab", "model", {"topic": "ab", "depth": 2}),
        ("plan-1", "plan", {"goal": "win"}),
    ]
    assert ask.__annotations__ == {"topic": str, "depth": int, "return": str}


async def test_no_credential_reaches_a_recorded_step(broker: ScriptedBroker) -> None:
    def model() -> None:
        with pytest.raises(errors.CredentialMisuse):
            stepgrant.current_credential()

    @stepgrant.tool
    def outer() -> None:
        stepgrant.step("model", model)

    with stepgrant.run("job", agent="agent", **broker.at()):
        outer()

    assert broker.calls("record")[0].path.endswith("/steps/outer-1~model-1/record")


async def test_tool_inside_a_recorded_step_is_its_child(broker: ScriptedBroker) -> None:
    tool = stepgrant.tool(name="charge")(lambda: 1)
    with stepgrant.run("job", agent="agent", **broker.at()):
        stepgrant.step("batch", tool)

    assert broker.verbs == ["runs", "begin", "complete", "record", "run.complete"]
    assert broker.calls("begin")[0].path.endswith("/steps/batch-1~charge-1/begin")


def test_declarations_that_cannot_be_meant() -> None:
    def acts(cred: Annotated[stepgrant.Credential, stepgrant.Inject]) -> None: ...

    with pytest.raises(errors.ConfigurationError, match="a recorded step has no credential; what acts is a tool"):
        stepgrant.step(acts)
    with pytest.raises(errors.ConfigurationError, match="needs a name"):
        stepgrant.step(None, lambda: 1)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(errors.ConfigurationError, match="outside of a run"):
        stepgrant.step("plan", lambda: 1)
