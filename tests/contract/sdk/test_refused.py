"""What a refusal says of the call that it refuses: tool, step, what is the matter and what to do; a real broker."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import pickle
from typing import Any

import pytest

from faces import Face, faces
from stepgrant import errors
from stepgrant.testing import TestBroker

CURE = (
    ". Nothing was done. A step id stands for one action: give calls that differ step ids that differ "
    "(step_id= or .with_id(...)), and a program that was changed another run key"
)


class Tools:
    """Tools under one step id, for a face."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.done: list[str] = []

    def __call__(self, name: str, **declared: Any) -> Any:
        """The tool of this name."""

        def act(order: str, amount: int = 5) -> str:
            self.done.append(f"{name} {order} {amount}")
            return "done"

        return self.face.tool(act, **{"name": name, "step_id": "the-step", **declared})


@pytest.fixture
def at(broker: TestBroker) -> dict[str, Any]:
    broker.allow("agent", {"charge": "once", "refund": "once", "get": "read", "pay": "idempotent"})
    return {"agent": "agent", "url": broker.url, "workload_key": broker.key_of("agent")}


async def drift(face: Face, at: dict[str, Any], tools: Tools, first: Any, then: Any, *args: Any) -> errors.StepDrift:
    """What is said of the second call, and its run's id; it did nothing, also where it is only asked about."""
    async with face.run(**at) as held:
        await face.call(first, "991")
        done = len(tools.done)
        with pytest.raises(errors.StepDrift) as asked:
            await face.call(then.prepare, *args)
        with pytest.raises(errors.StepDrift) as caught:
            await face.call(then, *args)
        assert len(tools.done) == done
        assert str(asked.value) == str(caught.value)
        assert caught.value.run == held.id
    twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - just made
    assert (str(twin), vars(twin)) == (str(caught.value), vars(caught.value))
    return caught.value


@faces
async def test_other_arguments_are_named(face: Face, at: dict[str, Any]) -> None:
    tools = Tools(face)
    tool = tools("charge")
    said = await drift(face, at, tools, tool, tool, "992")
    assert (said.tool, said.step, said.differs, said.before) == ("charge", "the-step", "arguments", None)
    assert str(said) == (
        "charge (step the-step): this step was started with another action; another arguments than before" + CURE
    )


@faces
async def test_another_tool_is_named(face: Face, at: dict[str, Any]) -> None:
    tools = Tools(face)
    said = await drift(face, at, tools, tools("charge"), tools("refund"), "991")
    assert (said.tool, said.step, said.differs, said.before) == ("refund", "the-step", "tool", "charge")
    assert "; the step was charge before. Nothing was done." in str(said)


@faces
@pytest.mark.parametrize(
    ("declared", "differs"),
    [
        ({"resource": "order/{order}"}, "resource"),
        ({"idempotency_key": "{order}"}, "idempotency key"),
        ({"effect": "idempotent"}, "effect"),
    ],
    ids=["resource", "key", "effect"],
)
async def test_another_declaration_is_named(
    face: Face, at: dict[str, Any], declared: dict[str, Any], differs: str
) -> None:
    tools = Tools(face)
    said = await drift(face, at, tools, tools("charge"), tools("charge", **declared), "991")
    assert (said.tool, said.step, said.differs, said.before) == ("charge", "the-step", differs, None)


@faces
async def test_a_recorded_step_is_named(face: Face, at: dict[str, Any]) -> None:
    async with face.run("order-1", **at) as held:
        assert await face.step("plan", lambda: 1, step_id="plan") == 1
        with pytest.raises(errors.StepDrift) as caught:
            await face.step("other", lambda: 2, step_id="plan")
    said = caught.value
    assert (said.tool, said.step, said.run) == ("other", "plan", held.id)
    assert (said.differs, said.before) == ("tool", "plan")


@faces
async def test_arguments_over_the_limit_are_named_with_it(face: Face, at: dict[str, Any]) -> None:
    tools = Tools(face)
    async with face.run(**at):
        with pytest.raises(errors.BrokerError) as caught:
            await face.call(tools("charge"), "x" * 300_000)
    assert caught.value.code == "too_large"
    assert caught.value.detail == "charge (step the-step): the action is over 262144 bytes; it was not begun"
    assert tools.done == []


@faces
async def test_a_result_over_the_limit_is_named_with_it(face: Face, at: dict[str, Any]) -> None:
    async with face.run(**at):
        with pytest.raises(errors.BrokerError) as caught:
            await face.call(face.tool(lambda: "x" * 300_000, name="charge", step_id="the-step"))
    assert caught.value.code == "too_large"
    assert caught.value.detail.startswith("charge (step the-step): the result is over 262144 bytes; store it elsewhere")
    assert caught.value.detail.endswith("it is completed and is not done again, but its result is not stored")


@faces
async def test_a_recorded_failure_says_what_to_do(face: Face, at: dict[str, Any]) -> None:
    def get(order: str) -> None:
        raise LookupError(f"no order {order}")

    tool = face.tool(get, effect="read", step_id="get-{order}")
    async with face.run(**at):
        with pytest.raises(LookupError):
            await face.call(tool, "991")
        with pytest.raises(errors.StepFailed) as caught:
            await face.call(tool, "991")
    assert (caught.value.tool, caught.value.step, caught.value.again) == ("get", "get-991", True)
    assert str(caught.value) == (
        "get (step get-991) failed before (failed): LookupError: no order 991; that is recorded; "
        "the tool is tried again if it has retry_failed=True"
    )
