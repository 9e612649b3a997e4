"""A run that another process goes on with: replay, fencing, doubt, approvals, input."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import stepgrant
from agents import tool_of
from faces import Face, faces
from shop import Shop
from stepgrant import errors
from stepgrant.testing import TestBroker

LEASE_S = 30
SHORT_LEASE_S = 4
"""A test waits until it is over; a machine that stands still for two seconds loses none."""
short_lease = pytest.mark.parametrize(
    "broker", [{"lease_s": SHORT_LEASE_S, "sweep_ms": 50}], indirect=True, ids=["short lease"]
)
DAY_S = 86_400


def at(broker: TestBroker, agent: str = "agent") -> dict[str, Any]:
    return {"agent": agent, "url": broker.url, "workload_key": broker.key_of(agent)}


@faces
async def test_resumed_run_gets_everything_back_and_does_nothing_twice(
    face: Face, broker: TestBroker, shop: Shop
) -> None:
    broker.allow("agent", shop.tools(charge="once", get="read"))
    charge, get = tool_of(face, shop, "charge"), tool_of(face, shop, "get", effect="read")
    plans: list[float] = []

    def make_plan() -> dict[str, Any]:
        plans.append(time.time())
        return {"orders": ["1", "2"], "at": plans[-1]}

    async def agent(end: Exception | None) -> Any:
        async with face.run("order-991", **at(broker)) as held:
            plan = await face.step("plan", make_plan)
            found = [await face.call(get, "1")] + [await face.call(charge, order) for order in plan["orders"]]
            if end is not None:
                raise end
            return held, plan, found

    with pytest.raises(ValueError, match="crash"):
        await agent(ValueError("crash"))
    held, plan, found = await agent(None)

    assert (held.resumed, held.epoch, len(plans)) == (True, 2, 1)
    assert plan == {"orders": ["1", "2"], "at": plans[0]}
    assert [one["order"] for one in found] == ["1", "1", "2"]
    assert [act[:2] for act in shop.acts] == [
        ("get", {"order": "1", "amount": 5}),
        ("charge", {"order": "1", "amount": 5}),
        ("charge", {"order": "2", "amount": 5}),
    ]
    types = [entry.type for entry in broker.entries(held.id)]
    assert types.count("step_replayed") == 4
    assert types[-1] == "run_ended"


@faces
async def test_ended_run_is_ended(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    async with face.run("order-991", **at(broker)) as held:
        held.result = {"charged": 5}
    with pytest.raises(errors.RunEnded):
        async with face.run("order-991", **at(broker)):
            pytest.fail("nobody may enter")


@faces
async def test_input_is_stored_for_whoever_resumes(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    order = {"order": "991", "lines": [1, 2.5, None, "ü"]}

    async def crashing() -> None:
        async with face.run("order-991", **at(broker), input=order) as held:
            assert (held.input, held.resumed) == (order, False)
            raise ValueError("crash")

    with pytest.raises(ValueError, match="crash"):
        await crashing()
    with pytest.raises(errors.BrokerError) as other:
        async with face.run("order-991", **at(broker), input={"order": "992"}):
            pytest.fail("nobody may enter")
    async with face.run("order-991", **at(broker)) as held:
        assert (held.input, held.resumed) == (order, True)

    assert other.value.code == "duplicate_request"


@faces
async def test_zombie_gets_nothing(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = tool_of(face, shop, "charge")

    async def zombie() -> None:
        async with face.run("order-991", **at(broker)) as held:
            await face.call(charge, "1")
            broker.advance(LEASE_S + 1)
            async with face.run("order-991", **at(broker)) as successor:
                assert (successor.resumed, successor.epoch) == (True, 2)
                await face.call(charge, "1")
                await face.call(charge, "2")
            for _ in range(2):
                with pytest.raises(errors.RunNotHeld):
                    await face.call(charge, "3")
            assert held.fenced

    with pytest.raises(errors.RunNotHeld):
        await zombie()

    assert [act[1]["order"] for act in shop.acts] == ["1", "2"]


@faces
async def test_lapsed_lease_fences_even_if_nobody_took_over(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))

    async def agent() -> None:
        async with face.run("order-991", **at(broker)):
            broker.advance(LEASE_S + 1)
            await face.call(tool_of(face, shop, "charge"), "1")

    with pytest.raises(errors.StaleEpoch):
        await agent()
    assert shop.acts == []


@faces
@short_lease
async def test_lease_of_a_process_that_is_gone_is_waited_for(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    gone = stepgrant.run("order-991", **at(broker))
    held = gone.__enter__()
    held._heartbeat.stop()  # as if the process had been killed
    waits: list[float | None] = []
    async with face.run("order-991", **at(broker), on_wait=lambda error: waits.append(error.retry_after)) as resumed:
        assert resumed.epoch == 2
    with pytest.raises(errors.RunNotHeld):
        gone.__exit__(None, None, None)

    assert waits
    assert all(wait is not None and 0 < wait <= SHORT_LEASE_S for wait in waits)


@short_lease
def test_two_processes_at_once(broker: TestBroker) -> None:
    """One holds and beats; the other waits, and gets the run when the first gives it back."""
    broker.allow("agent", {})
    epochs: list[int] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with stepgrant.run("order-991", **at(broker)) as held:
            epochs.append(held.epoch)
            inside.set()
            leave.wait(60)
            held.park()

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(60)
    waits: list[Any] = []

    def told(error: errors.LeaseHeld) -> None:
        waits.append(error)
        if len(waits) == 3:  # two leases long it was renewed
            leave.set()

    with stepgrant.run("order-991", **at(broker), on_wait=told) as held:
        epochs.append(held.epoch)
    thread.join(60)

    assert epochs == [1, 2]
