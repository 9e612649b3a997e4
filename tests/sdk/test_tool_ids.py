"""Step keys: given, ordinal, nested; and what calls side by side may do."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepgrant
from faces import Face, faces
from scripted import Reply, ScriptedBroker, granted, problem, scripted
from stepgrant import errors
from stepgrant._frames import MAX_KEY, child_key, key_part


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


def keys(broker: ScriptedBroker) -> list[str]:
    return [seen.path.split("/")[5] for seen in broker.calls("begin")]


@faces
async def test_without_an_id_calls_are_counted_by_tool(face: Face, broker: ScriptedBroker) -> None:
    one, other = face.tool(lambda: 1, name="one"), face.tool(lambda: 2, name="git/other@main")
    async with face.run(**broker.at()):
        for tool in (one, other, one):
            await face.call(tool)

    assert keys(broker) == ["one-1", "git_other_main-1", "one-2"]
    assert {seen.body["id_source"] for seen in broker.calls("begin")} == {"ordinal"}


@faces
async def test_ids_that_were_given(face: Face, broker: ScriptedBroker) -> None:
    tool = face.tool(lambda order: order, name="charge", step_id="charge:{order}")
    async with face.run(**broker.at()):
        await face.call(tool, "991")
        await face.call(tool.with_id("mine"), "992")
        await face.call(tool.with_id("a~b"), "993")
        await face.call(tool.with_id("ü" * 300), "994")

    assert keys(broker)[:2] == ["charge:991", "mine"]
    assert all(key.startswith("h-") and len(key) == 45 for key in keys(broker)[2:])
    sources = [seen.body.get("id_source", "explicit") for seen in broker.calls("begin")]
    assert sources == ["explicit", "call_id", "call_id", "call_id"]


@pytest.mark.parametrize("given_id", ["", 5, None])
def test_id_that_is_none_is_refused(given_id: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="a step id is a text that is not empty"):
        stepgrant.tool(name="charge")(lambda: 1).with_id(given_id)


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_keys_stay_in_the_alphabet_and_apart(one: str, other: str) -> None:
    first, second = key_part(one), key_part(other)
    assert (first == second) == (one == other)
    for key in (first, child_key(first, second), child_key(child_key("p" * MAX_KEY, first), second)):
        assert len(key) <= MAX_KEY
        assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:~-")
    assert "~" not in first


# ------------------------------------------------------------------------- an ordinal is used up only by what is final


@faces
@pytest.mark.parametrize("again", [errors.NotExecuted("later"), ValueError("perhaps")], ids=["not executed", "unknown"])
async def test_call_that_is_repeated_is_the_same_step(face: Face, broker: ScriptedBroker, again: Exception) -> None:
    """As a second step, it would be done in addition when a resumed agent does the first one again."""
    outcomes: list[Any] = [again, "done"]

    def charge() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    tool = face.tool(charge)
    async with face.run(**broker.at()):
        with pytest.raises(type(again)):
            await face.call(tool)
        assert await face.call(tool) == "done"
        outcomes.append("another")
        await face.call(tool)

    assert keys(broker) == ["charge-1", "charge-1", "charge-2"]


@faces
async def test_waiting_for_a_person_in_a_loop_asks_about_one_step(face: Face, broker: ScriptedBroker) -> None:
    waiting = Reply({"outcome": "approval_required", "approval_id": "apr_1", "answer_by": 5})
    broker.will("begin", waiting, waiting)
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()):
        for _ in range(2):
            with pytest.raises(errors.ApprovalRequired):
                await face.call(tool)
        await face.call(tool)

    assert keys(broker) == ["charge-1"] * 3


@faces
@pytest.mark.parametrize(
    ("item", "error"),
    [
        (Reply({"outcome": "denied", "reasons": ["no"]}), errors.Denied),
        (
            Reply({"outcome": "replay", "step": "charge-1", "attempt": 1, "failure": {"status": "failed"}}),
            errors.StepFailed,
        ),
        (Reply({"outcome": "replay", "step": "charge-1", "attempt": 1, "withheld": True}), errors.ResultWithheld),
    ],
    ids=["denied", "failed", "withheld"],
)
async def test_final_outcome_uses_the_ordinal_up(
    face: Face, broker: ScriptedBroker, item: Reply, error: type[Exception]
) -> None:
    broker.will("begin", item)
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()):
        with pytest.raises(error):
            await face.call(tool)
        await face.call(tool)

    assert keys(broker) == ["charge-1", "charge-2"]


@faces
@pytest.mark.parametrize(("retry", "expected"), [(False, "charge-2"), (True, "charge-1")])
async def test_failure_of_a_read_is_final_unless_it_is_tried_again(
    face: Face, broker: ScriptedBroker, *, retry: bool, expected: str
) -> None:
    broker.will("begin", *[lambda seen: Reply(granted(seen.path.split("/")[5], effect="read"))] * 2)
    tool = face.tool(lambda: 1 / 0, name="charge", effect="read", retry_failed=retry)
    async with face.run(**broker.at()):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await face.call(tool)

    assert keys(broker) == ["charge-1", expected]


@faces
async def test_refused_begin_gives_the_ordinal_back(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("quarantined", 403))
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()):
        with pytest.raises(errors.Quarantined):
            await face.call(tool)
        await face.call(tool)

    assert keys(broker) == ["charge-1", "charge-1"]


# --------------------------------------------------------------------------------------------------------- side by side


async def test_tasks_side_by_side_need_ids(broker: ScriptedBroker) -> None:
    @stepgrant.tool
    async def slow(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    async with stepgrant.run("job", agent="agent", **broker.at()):
        found = await asyncio.gather(slow(1), slow(2), return_exceptions=True)
        assert found[0] == 1
        assert isinstance(found[1], errors.OrdinalUnderConcurrency)
        assert "step_id= or .with_id(...)" in str(found[1])
        assert await asyncio.gather(*(slow.with_id(f"slow-{n}")(n) for n in range(5))) == [0, 1, 2, 3, 4]

    assert keys(broker)[0] == "slow-1"
    assert sorted(keys(broker)[1:]) == [f"slow-{n}" for n in range(5)]


@pytest.mark.parametrize("first_has_id", [True, False])
async def test_call_without_an_id_bears_no_company(broker: ScriptedBroker, *, first_has_id: bool) -> None:
    """Which of two starts first must not decide whether it is allowed."""

    @stepgrant.tool
    async def slow() -> None:
        await asyncio.sleep(0.05)

    async with stepgrant.run("job", agent="agent", **broker.at()):
        named = slow.with_id("named")
        calls = [named(), slow()] if first_has_id else [slow(), named()]
        found = await asyncio.gather(*calls, return_exceptions=True)

    assert found[0] is None
    assert isinstance(found[1], errors.OrdinalUnderConcurrency)


def test_threads_side_by_side_need_ids(broker: ScriptedBroker) -> None:
    both_in, go = threading.Barrier(2), threading.Event()

    @stepgrant.tool
    def slow() -> None:
        both_in.wait(60)
        go.wait(60)

    with stepgrant.run("job", agent="agent", **broker.at()), ThreadPoolExecutor() as pool:
        context = contextvars.copy_context()
        first = pool.submit(context.run, slow)
        both_in.wait(60)
        with pytest.raises(errors.OrdinalUnderConcurrency):
            slow()
        go.set()
        first.result(60)

    assert keys(broker) == ["slow-1"]


def test_thread_of_a_pool_has_no_run_unless_it_is_given(broker: ScriptedBroker) -> None:
    tool = stepgrant.tool(name="charge")(lambda: 1)
    with stepgrant.run("job", agent="agent", **broker.at()), ThreadPoolExecutor() as pool:
        with pytest.raises(errors.ConfigurationError, match="copy_context"):
            pool.submit(tool).result(60)
        assert pool.submit(contextvars.copy_context().run, tool).result(60) == 1


async def test_same_id_twice_side_by_side(broker: ScriptedBroker) -> None:
    @stepgrant.tool(step_id="charge")
    async def charge() -> int:
        await asyncio.sleep(0.05)
        return 1

    async with stepgrant.run("job", agent="agent", **broker.at()):
        found = await asyncio.gather(charge(), charge(), return_exceptions=True)

    assert found[0] == 1
    assert isinstance(found[1], errors.ConfigurationError)
    assert "step 'charge' is under way already" in str(found[1])


async def test_children_of_steps_side_by_side_are_counted_apart(broker: ScriptedBroker) -> None:
    @stepgrant.tool
    async def child() -> None:
        await asyncio.sleep(0.02)

    @stepgrant.tool(step_id="parent-{number}")
    async def parent(number: int) -> int:
        await child()
        await child()
        return number

    async with stepgrant.run("job", agent="agent", **broker.at()):
        await asyncio.gather(parent(1), parent(2))

    children = sorted(key for key in keys(broker) if "~" in key)
    assert children == ["parent-1~child-1", "parent-1~child-2", "parent-2~child-1", "parent-2~child-2"]


# ---------------------------------------------------------------------------------------------------- asking before


@faces
async def test_asking_uses_no_ordinal_up_and_runs_nothing(face: Face, broker: ScriptedBroker) -> None:
    ready = Reply({"outcome": "run", "step": "charge-1", "attempt": 1})
    broker.will("prepare", ready, ready)
    ran: list[int] = []
    tool = face.tool(lambda amount: ran.append(amount), name="charge", effect="idempotent")  # noqa: PLW0108
    async with face.run(**broker.at()):
        for _ in range(2):
            assert await face.call(tool.prepare, 5) == stepgrant.Advice("run", "charge-1", attempt=1)
        assert ran == []
        await face.call(tool, 5)

    asked = [seen.body for seen in broker.calls("prepare")]
    assert asked == [broker.calls("begin")[0].body] * 2
    assert keys(broker) == ["charge-1"]
    assert ran == [5]
