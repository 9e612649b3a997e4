"""A person is asked, answers later, and the run goes on: over a real broker."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

from typing import Any

import pytest

from agents import calling, tool_of
from faces import Face, faces
from shop import Shop
from stepgrant import errors
from stepgrant.testing import TestBroker

LEASE_S = 30
DAY_S = 86_400


def at(broker: TestBroker, agent: str = "agent") -> dict[str, Any]:
    return {"agent": agent, "url": broker.url, "workload_key": broker.key_of(agent)}


@faces
async def test_person_is_asked_while_nobody_holds_the_run(face: Face, broker: TestBroker, shop: Shop) -> None:
    tools = {"charge": {**shop.tools(charge="once")["charge"], "ask": True}}
    broker.allow("agent", tools)
    charge = tool_of(face, shop, "charge")

    async def agent() -> Any:
        async with face.run("order-991", **at(broker)) as held:
            return held, await face.call(charge, "991")

    with pytest.raises(errors.ApprovalRequired) as first:
        await agent()
    with pytest.raises(errors.ApprovalRequired) as second:
        await agent()
    broker.advance(300)
    broker.approve(second.value.approval_id, note="it is fine")
    held, result = await agent()

    assert first.value.approval_id == second.value.approval_id
    assert result["order"] == "991"
    assert (held.epoch, shop.done("charge")) == (3, 1)
    parked = [entry.part("body").get("reason") for entry in broker.entries(held.id) if entry.type == "run_parked"]
    assert parked == ["awaiting_approval"] * 2


@faces
async def test_person_can_be_waited_for(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", {"charge": {**shop.tools(charge="once")["charge"], "ask": True}})
    charge = face.tool(calling(shop, "charge"))  # by order of calls: asking again is the same step
    async with face.run("order-991", **at(broker)):
        with pytest.raises(errors.ApprovalRequired) as caught:
            await face.call(charge, "991")
        broker.approve(caught.value.approval_id)
        assert (await face.call(charge, "991"))["order"] == "991"

    assert shop.done("charge") == 1


@faces
async def test_person_says_no(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", {"charge": {**shop.tools(charge="once")["charge"], "ask": True}})
    charge = tool_of(face, shop, "charge")
    async with face.run("order-991", **at(broker)):
        with pytest.raises(errors.ApprovalRequired) as caught:
            await face.call(charge, "991")
        broker.deny(caught.value.approval_id, note="not today")
        with pytest.raises(errors.Denied) as denied:
            await face.call(charge, "991")

    assert denied.value.reasons == ("approval_denied",)
    assert shop.acts == []


@faces
async def test_approval_is_for_these_arguments_only(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", {"charge": {**shop.tools(charge="once")["charge"], "ask": True}})
    charge = tool_of(face, shop, "charge")
    async with face.run("order-991", **at(broker)):
        with pytest.raises(errors.ApprovalRequired) as small:
            await face.call(charge, "991", amount=5)
        broker.approve(small.value.approval_id)
        with pytest.raises(errors.ApprovalRequired) as large:
            await face.call(charge, "991", amount=5000)

    assert large.value.approval_id != small.value.approval_id
    assert shop.acts == []


@faces
async def test_answer_that_comes_after_days(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"charge": {"effect": "once", "ask": True}})
    charge = face.tool(lambda: "charged", name="charge")

    async def agent() -> Any:
        async with face.run("order-991", **at(broker)):
            return await face.call(charge)

    with pytest.raises(errors.ApprovalRequired) as first:
        await agent()
    broker.advance(3 * DAY_S)
    with pytest.raises(errors.ApprovalRequired) as second:  # the time to answer was a day, so it is asked again
        await agent()
    broker.advance(DAY_S / 2)
    broker.approve(second.value.approval_id)
    broker.advance(DAY_S / 2)

    assert second.value.approval_id != first.value.approval_id
    assert await agent() == "charged"
