"""One step from begin to completion over a real broker: done once, recorded, given back."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

import stepgrant
from agents import tool_of
from faces import Asynchronous, Blocking, Face, faces
from shop import Shop
from stepgrant import errors
from stepgrant.testing import TestBroker

MADE_UP = "sk-live-made-up-api-key"


def at(broker: TestBroker, agent: str = "agent") -> dict[str, Any]:
    return {"agent": agent, "url": broker.url, "workload_key": broker.key_of(agent)}


@faces
async def test_completed_step_is_replayed_in_the_same_run(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(face, shop, "charge")
    async with face.run(**at(broker)) as held:
        first = await face.call(tool, "991", amount=7)
        assert await face.call(tool, "991", amount=7) == first == {"done": "charge", "order": "991", "amount": 7}

    assert shop.acts == [("charge", {"order": "991", "amount": 7}, shop.acts[0][2])]
    assert [entry.type for entry in broker.entries(held.id)] == [
        "run_opened", "step_prepared", "decision", "grant_issued", "grant_redeemed", "step_completed", "grant_revoked",
        "run_ended",
    ]  # fmt: skip


@faces
async def test_what_nobody_allowed_is_denied(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    async with face.run(**at(broker)):
        with pytest.raises(errors.Denied) as caught:
            await face.call(tool_of(face, shop, "refund"), "991")
        with pytest.raises(errors.Denied) as looser:
            await face.call(tool_of(face, shop, "charge", effect="read"), "991")

    assert "tool_not_listed" in caught.value.reasons
    assert "effect_not_allowed" in looser.value.reasons
    assert caught.value.decision_id
    assert shop.acts == []


@faces
async def test_agent_that_is_not_allowed_opens_nothing(face: Face, broker: TestBroker) -> None:
    broker.key_of("stranger")
    with pytest.raises(errors.Denied) as caught:
        async with face.run(**at(broker, "stranger")):
            pytest.fail("nobody may enter")
    assert "agent_not_listed" in caught.value.reasons

    broker.allow("agent", {})
    with pytest.raises(errors.BrokerError) as forbidden:
        async with face.run(agent="agent", url=broker.url, workload_key=broker.key_of("stranger")):
            pytest.fail("nobody may enter")
    assert forbidden.value.code == "forbidden"


@faces
async def test_same_id_with_other_arguments_is_drift(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(face, shop, "charge")
    async with face.run(**at(broker)):
        await face.call(tool, "991")
        with pytest.raises(errors.StepDrift):
            await face.call(tool, "991", amount=6)

    assert shop.done("charge") == 1


@faces
async def test_failure_of_a_read_is_its_outcome(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"get": "read", "again": "read"})
    calls = []

    def get(order: str) -> None:
        calls.append(order)
        raise LookupError(f"no order {order}")

    once = face.tool(get, name="get", effect="read", step_id="get-{order}")
    again = face.tool(get, name="again", effect="read", step_id="again-{order}", retry_failed=True)
    async with face.run(**at(broker)):
        for tool in (once, again):
            with pytest.raises(LookupError):
                await face.call(tool, "991")
        with pytest.raises(errors.StepFailed, match="LookupError: no order 991") as caught:
            await face.call(once, "991")
        with pytest.raises(LookupError):
            await face.call(again, "991")

    assert caught.value.status == "failed"
    assert len(calls) == 3


@faces
async def test_idempotent_tool_is_tried_again_with_the_same_key(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(put="idempotent"))
    tool = tool_of(face, shop, "put", effect="idempotent")
    shop.faults.append("lost")
    async with face.run(**at(broker)):
        with pytest.raises(Exception, match="disconnected"):
            await face.call(tool, "991")
        assert await face.call(tool, "991") == {"done": "put", "order": "991", "amount": 5}

    (_, _, first), (_, _, second) = shop.acts
    assert first == second


@faces
async def test_key_that_the_tool_names_reaches_the_target(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(face, shop, "charge", idempotency_key="charge:{order}")
    async with face.run(**at(broker)):
        await face.call(tool, "991")

    assert shop.acts[0][2] == "charge:991"
    assert shop.headers[0]["idempotency-key"] == "charge:991"


@faces
async def test_not_executed_lets_it_run_again(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    said: list[Exception] = [errors.NotExecuted("no stock")]

    def charge(order: str) -> str:
        if said:
            raise said.pop()
        return order

    tool = face.tool(charge)
    async with face.run(**at(broker)) as held:
        with pytest.raises(errors.NotExecuted):
            await face.call(tool, "991")
        assert await face.call(tool, "991") == "991"

    steps = {(entry.step, entry.attempt) for entry in broker.entries(held.id) if entry.type == "step_prepared"}
    assert steps == {("charge-1", 1), ("charge-1", 2)}


@faces
async def test_static_secret_goes_to_its_host_only_and_never_into_a_result(face: Face, broker: TestBroker) -> None:
    broker.secret("psp", MADE_UP, hosts=["psp.example"], header="X-Api-Key")
    static = {"effect": "once", "issuer": "static", "params": {"secret": "psp"}}
    broker.allow("agent", {"use": static, "leak": static})
    seen: list[Any] = []

    def use() -> None:
        credential = stepgrant.current_credential()
        seen.append(credential.headers("POST", "https://psp.example/charges"))
        with pytest.raises(errors.CredentialMisuse):
            credential.headers("POST", "https://evil.example/charges")

    def leak() -> dict[str, str]:
        return {"debug": f"sent {stepgrant.current_credential().field('value')}"}

    async with face.run(**at(broker)) as held:
        await face.call(face.tool(use))
        with pytest.raises(errors.SecretInResult):
            await face.call(face.tool(leak, step_id="leak"))
        with pytest.raises(errors.ResultWithheld):
            await face.call(face.tool(leak, step_id="leak"))

    assert seen[0]["X-Api-Key"] == MADE_UP
    assert MADE_UP not in str([entry.fields for entry in broker.entries(held.id)])


async def test_tasks_side_by_side(broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(Asynchronous(), shop, "charge")
    async with stepgrant.run("job", **at(broker)):
        found = await asyncio.gather(*(tool(str(number)) for number in range(12)))

    assert [one["order"] for one in found] == [str(number) for number in range(12)]
    assert len(shop.acts) == len({act[2] for act in shop.acts}) == 12


def test_threads_side_by_side(broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(Blocking(), shop, "charge")
    with stepgrant.run("job", **at(broker)), ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(copy_context().run, tool, str(number)) for number in range(12)]
        found = [one.result(60)["order"] for one in waiting]

    assert found == [str(number) for number in range(12)]
    assert len(shop.acts) == 12


async def test_blocking_tool_in_an_async_run_and_the_other_way_round(broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once", put="idempotent"))
    blocking = tool_of(Blocking(), shop, "charge")
    coroutine = tool_of(Asynchronous(), shop, "put", effect="idempotent")
    async with stepgrant.run("job", **at(broker)):
        blocking("1")
        await coroutine("2")
        await asyncio.to_thread(blocking, "3")
    with stepgrant.run("other", **at(broker)):
        blocking("1")
        await coroutine("2")

    assert [act[0] for act in shop.acts] == ["charge", "put", "charge", "charge", "put"]


@faces
async def test_nested_steps_and_the_ledger(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {"outer": "once", "inner": "read"})
    inner = stepgrant.tool(name="inner", effect="read")(lambda number: number)

    def outer() -> list[int]:
        return [inner(1), inner(2)]

    async with face.run(**at(broker)) as held:
        assert await face.call(face.tool(outer)) == [1, 2]

    prepared = [entry.step for entry in broker.entries(held.id) if entry.type == "step_prepared"]
    assert prepared == ["outer-1", "outer-1~inner-1", "outer-1~inner-2"]
