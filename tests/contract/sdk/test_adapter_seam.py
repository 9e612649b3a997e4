"""The seam for frameworks, with a framework that is a dictionary: what an adapter is told, and when."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest

import stepgrant
from agents import asking, calling
from faces import Blocking, Face, Target, faces
from shop import Shop, quick
from stepgrant import errors
from stepgrant._adapter import Doubt, Refusal, ToolCall, aguard, guard
from stepgrant._spec import ToolSpec
from stepgrant._tool import declared_as
from stepgrant.receipt import Event
from stepgrant.testing import TestBroker


class Leaves(Exception):
    """The toy framework's control flow."""


class Told(Exception):
    """What the adapter was told, raised as the framework would: in its own way."""

    def __init__(self, how: str, error: errors.StepgrantError) -> None:
        super().__init__(how, error.code)
        self.how = how
        self.error = error


class Toy:
    """A call is `{"tool", "args", "id"}`, a result `{"id", "value"}`."""

    def identify(self, native: Mapping[str, Any]) -> ToolCall:
        spec = native["tool"] if isinstance(native["tool"], ToolSpec) else declared_as(native["tool"])
        return ToolCall(spec, native["args"], native["id"], native.get("thread"))

    def passes(self, error: BaseException) -> bool:
        return isinstance(error, Leaves)

    def encode(self, native: Mapping[str, Any], result: Any) -> Any:
        return {"value": result}

    def decode(self, native: Mapping[str, Any], recorded: Any) -> Any:
        value = recorded["value"] if isinstance(recorded, dict) and recorded.keys() == {"value"} else recorded
        return {"id": native["id"], "value": value}

    def denied(self, native: Mapping[str, Any], error: Refusal) -> Any:
        return {"id": native["id"], "denied": error.code}

    def wait(self, native: Mapping[str, Any], error: errors.ApprovalRequired) -> NoReturn:
        raise Told("wait", error)

    def doubt(self, native: Mapping[str, Any], error: Doubt) -> NoReturn:
        raise Told("doubt", error)

    def broken(self, native: Mapping[str, Any], error: errors.StepgrantError) -> NoReturn:
        raise Told("broken", error)


async def through(face: Face, native: Mapping[str, Any], invoke: Callable[[], Any]) -> Any:
    """A call as the framework would make it. `invoke` gives a value, or in asyncio an awaitable of one."""
    if isinstance(face, Blocking):
        return guard(Toy(), native, invoke)

    async def ainvoke() -> Any:
        value = invoke()
        return await value if inspect.isawaitable(value) else value

    return await aguard(Toy(), native, ainvoke)


def of(tool: Any, call_id: str | None = "c1", /, **args: Any) -> dict[str, Any]:
    """A native call of a declared tool."""
    return {"tool": getattr(tool, "spec", tool), "args": args, "id": call_id}


def at(broker: TestBroker, **more: Any) -> dict[str, Any]:
    return {"agent": "agent", "url": broker.url, "workload_key": broker.key_of("agent"), **more}


def entries(broker: TestBroker, run: Any, kind: str) -> list[Event]:
    return [one for one in broker.entries(run.id) if one.type == kind]


# ------------------------------------------------------------------------------------------------------------- results


@faces
async def test_result_is_recorded_by_the_codec_and_bound_to_the_call(face: Face, broker: TestBroker) -> None:
    """The first time and later: what comes back went through the codec, with the id of the call that asks."""
    broker.allow("agent", {"look": "read"})
    target = Target({"b": 1, "a": (2,)})
    async with face.run("job", **at(broker)) as run:
        first = await through(face, of("look", topic="x"), target.act)
        again = await through(face, of("look", topic="x"), target.act)
    assert first == again == {"id": "c1", "value": {"a": [2], "b": 1}}
    assert list(first["value"]) == ["a", "b"]
    assert target.reached == 1
    assert len(entries(broker, run, "step_completed")) == 1


@faces
@quick
async def test_result_of_a_hook_goes_through_the_codec_too(face: Face, broker: TestBroker, shop: Shop) -> None:
    """A tool that raised after its effect: the hook looks at once, and the call has its value. It is done once."""
    broker.allow("agent", shop.tools(charge="once"))
    charge = face.tool(calling(shop, "charge"), reconcile=asking(shop, "charge"))
    shop.faults.append("lost")
    async with face.run("job", **at(broker)):
        said = await through(face, of(charge, order="1", amount=5), lambda: charge(order="1", amount=5))
    assert said == {"id": "c1", "value": {"done": "charge", "order": "1", "amount": 5}}
    assert shop.done("charge") == 1


@faces
@quick
async def test_hook_that_finds_nothing_has_it_done_again_twice_at_most(
    face: Face, broker: TestBroker, shop: Shop
) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = face.tool(calling(shop, "charge"), reconcile=asking(shop, "charge"))
    shop.faults.extend(["redeemed"] * 3)
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(Told) as told:
            await through(face, of(charge, order="1", amount=5), lambda: charge(order="1", amount=5))
        assert told.value.how == "doubt"
    assert shop.done("charge") == 0
    assert [one.attempt for one in entries(broker, run, "grant_issued") if one.step == "c1"] == [1, 2, 3]


@faces
async def test_doubt_without_a_hook_is_not_what_the_tool_raised(face: Face, broker: TestBroker, shop: Shop) -> None:
    """A framework would show the exception to a model, which asks again under another id."""
    broker.allow("agent", shop.tools(charge="once"))
    charge = face.tool(calling(shop, "charge"))
    shop.faults.append("lost")
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(Told) as told:
            await through(face, of(charge, order="1", amount=5), lambda: charge(order="1", amount=5))
    assert told.value.how == "doubt"
    assert isinstance(told.value.error, errors.InDoubt)
    assert "RemoteProtocolError" in told.value.error.why
    assert [one.part("body")["reason"] for one in entries(broker, run, "run_parked")] == ["in_doubt"]


# ------------------------------------------------------------------------------------------------------ tools of ours


@faces
async def test_decorated_tool_is_one_step_under_an_adapter(face: Face, broker: TestBroker) -> None:
    """The adapter's step is the step; another call of the same tool inside is a step of its own."""
    broker.allow("agent", {"look": "read"})
    seen: list[str] = []

    def look(topic: str) -> Any:
        seen.append(stepgrant.current_step().key)
        if topic == "inner":
            return topic
        return tool.with_id("inside")(topic="inner")

    tool: Any = face.tool(look, effect="read", name="look") if isinstance(face, Blocking) else None
    if tool is None:

        @stepgrant.tool(effect="read", name="look")
        async def native(topic: str) -> Any:
            seen.append(stepgrant.current_step().key)
            return topic if topic == "inner" else await tool.with_id("inside")(topic="inner")

        tool = native
    async with face.run("job", **at(broker)) as run:
        said = await through(face, of(tool, topic="outer"), lambda: tool(topic="outer"))
    assert said["value"] == "inner"
    assert seen == ["c1", "c1~inside"]
    assert [one.step for one in entries(broker, run, "step_completed")] == ["c1~inside", "c1"]


@faces
async def test_other_arguments_than_were_decided_on_do_not_run(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"pay": "once"})
    target = Target()

    def pay(amount: int) -> Any:
        return [target.act(), amount]

    tool = face.tool(pay, effect="once")
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(errors.NotExecuted, match="other arguments"):
            await through(face, of(tool, amount=1), lambda: tool(amount=9000))
    assert target.reached == 0
    assert [one.part("outcome")["status"] for one in entries(broker, run, "step_failed")] == ["not_executed"]


@faces
async def test_declared_step_id_goes_before_the_frameworks_id(face: Face, broker: TestBroker) -> None:
    """Its author says that it stays the same; the id of a call may be lost."""
    broker.allow("agent", {"pay": "once"})
    spec = ToolSpec("pay", step_id="pay-{invoice}")
    target = Target()
    async with face.run("job", **at(broker)) as run:
        for call_id in ("c1", "c2"):
            await through(face, of(spec, call_id, invoice="a"), target.act)
    assert target.reached == 1
    assert [one.step for one in entries(broker, run, "step_completed")] == ["pay-a"]


# ------------------------------------------------------------------------------------------------ what is told, and how


@faces
async def test_final_refusals_are_given_back(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"look": "read"})
    target = Target(LookupError("nothing"))
    async with face.run("job", **at(broker)) as run:
        assert (await through(face, of("wipe", disk="a"), target.act))["denied"] == "policy_denied"
        with pytest.raises(LookupError):
            await through(face, of(ToolSpec("look", "read"), "c2", topic="a"), target.act)
        again = await through(face, of(ToolSpec("look", "read"), "c2", topic="a"), target.act)
    assert again["denied"] == "step_failed"
    assert target.reached == 1
    assert len(entries(broker, run, "run_ended")) == 1


@faces
async def test_what_the_tool_raised_is_raised_also_if_it_looks_like_ours(face: Face, broker: TestBroker) -> None:
    """A tool's own `Denied` is not the broker's: the adapter is not told that the call was denied."""
    broker.allow("agent", {"look": "read"})
    target = Target(errors.Denied(reasons=["made_up"]))
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(errors.Denied, match="made_up"):
            await through(face, of(ToolSpec("look", "read"), topic="a"), target.act)
    assert len(entries(broker, run, "step_failed")) == 1


@faces
async def test_pause_parks_the_run_though_its_block_ends_well(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"order": {"effect": "once", "ask": True}})
    target = Target()
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(Told) as told:
            await through(face, of("order", item="a"), target.act)
    assert told.value.how == "wait"
    assert target.reached == 0
    assert [one.part("body")["reason"] for one in entries(broker, run, "run_parked")] == ["awaiting_approval"]
    approval = told.value.error
    assert isinstance(approval, errors.ApprovalRequired)
    broker.approve(approval.approval_id)
    async with face.run("job", **at(broker)) as run:
        await through(face, of("order", item="a"), target.act)
    assert target.reached == 1
    assert len(entries(broker, run, "run_ended")) == 1


@faces
async def test_control_flow_of_the_framework_suspends(face: Face, broker: TestBroker) -> None:
    """Of the adapter's kind, without the run being told of it; the run waits for the call to come back."""
    broker.allow("agent", {"pay": "once"})
    async with face.run("job", **at(broker)) as run:
        with pytest.raises(Leaves):
            await through(face, of("pay", invoice="a"), Target(Leaves()).act)
    assert len(entries(broker, run, "step_suspended")) == 1
    assert entries(broker, run, "step_failed") == []
    assert [one.part("body")["reason"] for one in entries(broker, run, "run_parked")] == ["suspended"]


@faces
async def test_what_stops_this_process_is_broken(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"pay": "once"})
    target = Target()
    async with face.run("job", **at(broker)) as run:
        await face.call(run.park)
        with pytest.raises(Told) as told:
            await through(face, of("pay", invoice="a"), target.act)
    assert told.value.how == "broken"
    assert isinstance(told.value.error, errors.StaleEpoch)
    assert target.reached == 0


@faces
@pytest.mark.parametrize(("key", "fits"), [("talk", True), ("talk#again", True), ("talks", False), ("other", False)])
async def test_run_is_the_frameworks_conversation(face: Face, broker: TestBroker, key: str, *, fits: bool) -> None:
    """Under another key the same call would be another step, and be done again; a fork is meant to."""
    broker.allow("agent", {"pay": "once"})
    target = Target()
    native = {**of("pay", invoice="a"), "thread": "talk"}
    async with face.run(key, **at(broker)):
        if fits:
            await through(face, native, target.act)
        else:
            with pytest.raises(Told, match="configuration_error"):
                await through(face, native, target.act)
    assert target.reached == int(fits)
