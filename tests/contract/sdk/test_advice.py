"""Asking before acting, limits, and what else a real broker has to say to the SDK."""

from __future__ import annotations

from typing import Any

import pytest

import stepgrant_broker.testing
from agents import calling, tool_of
from faces import Face, faces
from shop import Shop
from stepgrant import Advice, errors
from stepgrant.testing import TestBroker
from stepgrant.testing._host import Host, Start


def at(broker: TestBroker, agent: str = "agent") -> dict[str, Any]:
    return {"agent": agent, "url": broker.url, "workload_key": broker.key_of(agent)}


def test_broker_is_the_host_that_the_sdk_asks_for(broker: TestBroker) -> None:
    start: Start = stepgrant_broker.testing.start
    host: Host = broker.host

    assert start is stepgrant_broker.testing.start
    assert host.issuer_url == host.url == broker.url


@faces
async def test_asking_mints_nothing_and_uses_nothing_up(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", {**shop.tools(charge="once"), "ask": {"effect": "once", "ask": True}})
    charge = face.tool(calling(shop, "charge"))
    ask, other = face.tool(lambda: 1, name="ask"), face.tool(lambda: 1, name="other")
    async with face.run("order", **at(broker)) as held:
        for _ in range(2):
            assert await face.call(charge.prepare, "991") == Advice("run", "charge-1", attempt=1)
        assert shop.headers == []
        await face.call(charge, "991")
        waiting = await face.call(ask.prepare)
        denied = await face.call(other.prepare)
        named = await face.call(charge.with_id("mine").prepare, "992")
        done = await face.call(charge.with_id("charge-1").prepare, "991")

    assert (waiting.outcome, waiting.step) == ("approval_required", "ask-1")
    assert str(waiting.approval_id).startswith("apr_")
    assert (denied.outcome, denied.step) == ("denied", "other-1")
    assert "tool_not_listed" in denied.reasons
    assert (named.outcome, named.step) == ("run", "mine")
    assert done == Advice("replay", "charge-1", attempt=1)
    granted = [entry.step for entry in broker.entries(held.id) if entry.type == "grant_issued"]
    assert granted == ["charge-1"]


@faces
async def test_advice_binds_nobody(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = tool_of(face, shop, "charge")
    async with face.run("order", **at(broker)):
        assert (await face.call(charge.prepare, "991")).outcome == "run"
        broker.allow("agent", {})
        with pytest.raises(errors.Denied):
            await face.call(charge, "991")

    assert shop.acts == []


@faces
async def test_run_without_a_key_is_named_by_the_broker(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    async with face.run(None, **at(broker)) as first, face.run(None, **at(broker)) as second:
        assert first.id != second.id
        assert first.key != second.key


@faces
async def test_result_over_the_limit_is_completed_and_withheld(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"dump": "once"})
    ran: list[int] = []

    def dump() -> str:
        ran.append(1)
        return "x" * 300_000

    tool = face.tool(dump, step_id="dump")
    async with face.run("order", **at(broker)):
        with pytest.raises(errors.BrokerError) as caught:
            await face.call(tool)
        with pytest.raises(errors.ResultWithheld):
            await face.call(tool)

    assert caught.value.code == "too_large"
    assert ran == [1]


@faces
async def test_taking_over_needs_policy(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    async with face.run("order", **at(broker)) as held:
        with pytest.raises(errors.Denied) as caught:
            async with face.run("order", **at(broker), takeover=True):
                pytest.fail("nobody may enter")
        assert not held.fenced

    assert "takeover_not_listed" in caught.value.reasons
