"""Steps inside of steps, and agents that are stopped in the middle of one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgrant
from faces import Face, Target, faces
from scripted import Reply, ScriptedBroker, Seen, granted, scripted
from stepgrant import errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------------------- inside of each other


@faces
async def test_step_inside_a_step_is_one_of_its_own(face: Face, broker: ScriptedBroker) -> None:
    inner = face.tool(lambda: 1, name="inner")

    async def outer() -> list[int]:
        return [await face.call(inner), await face.call(inner)]

    tool = stepgrant.tool(name="outer", step_id="order-7")(outer)
    async with stepgrant.run("job", agent="agent", **broker.at()):
        assert await tool() == [1, 1]

    keys = [seen.path.split("/")[5] for seen in broker.calls("begin")]
    assert keys == ["order-7", "order-7~inner-1", "order-7~inner-2"]


async def test_not_executed_of_a_child_says_nothing_of_its_parent(broker: ScriptedBroker) -> None:
    @stepgrant.tool
    def child() -> None:
        raise errors.NotExecuted("the child was never started")

    @stepgrant.tool
    def parent() -> None:
        child()

    with pytest.raises(errors.NotExecuted), stepgrant.run("job", agent="agent", **broker.at()):
        parent()

    assert [seen.body["outcome"] for seen in broker.calls("fail")] == ["not_executed", "unknown"]


async def test_parent_of_a_child_that_waits_is_suspended(broker: ScriptedBroker) -> None:
    @stepgrant.tool
    def child() -> None:
        pytest.fail("a person must answer first")

    @stepgrant.tool
    def parent() -> None:
        child()

    waiting = {"outcome": "approval_required", "approval_id": "apr_1", "answer_by": 5}
    broker.will("begin", Reply(granted("parent-1")), Reply(waiting))
    with pytest.raises(errors.ApprovalRequired), stepgrant.run("job", agent="agent", **broker.at()):
        parent()

    assert broker.verbs == ["runs", "begin", "begin", "suspend", "run.park"]
    assert broker.calls("run.park")[0].body["reason"] == "awaiting_approval"


async def test_credential_of_a_step_is_not_that_of_the_step_inside(broker: ScriptedBroker) -> None:
    seen = []

    @stepgrant.tool
    def child() -> None:
        seen.append(stepgrant.current_credential())

    @stepgrant.tool
    def parent() -> None:
        seen.append(stepgrant.current_credential())
        child()
        seen.append(stepgrant.current_credential())

    with stepgrant.run("job", agent="agent", **broker.at()):
        parent()

    assert seen[0] is seen[2]
    assert seen[0] is not seen[1]
    with pytest.raises(errors.CredentialMisuse, match="no step is running here"):
        stepgrant.current_credential()
    with pytest.raises(errors.ConfigurationError, match="no step is running here"):
        stepgrant.current_step()


# -------------------------------------------------------------------------------------------------- being interrupted


async def test_generator_that_is_closed_sends_nothing_and_says_nothing(broker: ScriptedBroker) -> None:
    """Nothing can be awaited any more; the step stays started, and the resume table decides."""
    begun = asyncio.Event()

    @stepgrant.tool
    async def charge() -> None:
        begun.set()
        await asyncio.sleep(60)

    with stepgrant.run("job", agent="agent", **broker.at()):
        coroutine = charge()
        while not begun.is_set():
            waits_for = coroutine.send(None)
            if waits_for is None:
                await asyncio.sleep(0)
                continue
            waits_for._asyncio_future_blocking = False
            if not begun.is_set():
                await asyncio.wait({waits_for})
        coroutine.close()
        with pytest.raises(errors.CredentialMisuse):
            stepgrant.current_credential()

    assert broker.verbs == ["runs", "begin", "run.complete"]


async def test_cancelled_while_the_result_is_told_tells_it_first(broker: ScriptedBroker) -> None:
    ends: list[str] = []

    @stepgrant.tool
    async def charge() -> str:
        return "charged"

    async def agent() -> None:
        async with stepgrant.run("job", agent="agent", **broker.at()):
            try:
                await charge()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

    told_again = threading.Event()

    def unanswered(_: Seen) -> Reply:
        told_again.wait(60)
        return Reply({"step": "charge-1", "attempt": 1, "state": "completed"})

    broker.will("complete", unanswered)
    task = asyncio.create_task(agent())
    await broker.asked("complete")
    task.cancel()
    await broker.asked("complete", 2)
    told_again.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    first, second = broker.calls("complete")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert ends == ["cancelled"]
    assert broker.calls("run.park")[0].body == {"epoch": 1}  # `requested` is the default


async def test_cancelled_while_waiting_for_begin_runs_nothing(broker: ScriptedBroker) -> None:
    target = Target()
    cancelled = threading.Event()

    def unanswered(_: Seen) -> Reply:
        cancelled.wait(60)
        return Reply(granted("charge-1"))

    broker.will("begin", unanswered)

    @stepgrant.tool
    async def charge() -> None:
        target.act()

    async def agent() -> None:
        async with stepgrant.run("job", agent="agent", **broker.at()):
            await charge()

    task = asyncio.create_task(agent())
    await broker.asked("begin")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled.set()

    assert target.reached == 0
    assert len(broker.calls("begin")) == 1
