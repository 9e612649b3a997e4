"""A program that is started again after its run is over: what it is told, and what it is given back."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import inspect
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import stepgrant
from faces import Asynchronous, Face, coroutine_function, faces
from stepgrant import errors
from stepgrant.testing import TestBroker

INPUT = {"order": "991", "lines": [1, 2.5]}
RESULT = {"charged": [5, None], "text": "ü"}


async def told(value: Any) -> Any:
    """What a method of a handle gives, in either colour."""
    return await value if inspect.isawaitable(value) else value


def handle_of(face: Face, broker: TestBroker, function: Callable[..., Any], key: str = "agent") -> Any:
    """The function as an agent of this colour. `key`: whose key file."""
    if isinstance(face, Asynchronous):
        function = coroutine_function(function) if not inspect.iscoroutinefunction(function) else function
    return stepgrant.agent("agent", url=broker.url, workload_key=broker.key_of(key))(function)


class Work:
    """An agent's function that counts."""

    def __init__(self, result: Any = RESULT) -> None:
        self.calls = 0
        self.result = result

    def __call__(self, _: Any) -> Any:
        """Do it."""
        self.calls += 1
        return self.result


@pytest.fixture
def work(broker: TestBroker) -> Work:
    broker.allow("agent", {})
    return Work()


def working(work: Work) -> Callable[[Any], Any]:
    def agent(order: Any) -> Any:
        return work(order)

    return agent


def only(broker: TestBroker) -> Any:
    """The one run there is."""
    (run,) = broker.host.runs()  # type: ignore[attr-defined]
    return run


@faces
async def test_a_completed_run_gives_its_recorded_result_back(face: Face, broker: TestBroker, work: Work) -> None:
    agent = handle_of(face, broker, working(work))
    assert await told(agent.run(INPUT, run_key="order-1")) == RESULT
    before = len(broker.entries(only(broker).id))

    assert await told(agent.run(INPUT, run_key="order-1")) == RESULT
    assert await told(agent.run(run_key="order-1")) == RESULT
    assert await told(agent.resume("order-1")) == RESULT

    assert work.calls == 1
    assert len(broker.entries(only(broker).id)) == before


@faces
async def test_a_run_that_was_completed_without_a_result_gives_none(face: Face, broker: TestBroker, work: Work) -> None:
    work.result = None
    agent = handle_of(face, broker, working(work))
    await told(agent.run(INPUT, run_key="order-1"))
    assert await told(agent.run(INPUT, run_key="order-1")) is None
    assert work.calls == 1


@faces
@pytest.mark.parametrize("first", [INPUT, None], ids=["with input", "without"])
async def test_a_result_is_not_given_to_another_input(face: Face, broker: TestBroker, work: Work, first: Any) -> None:
    agent = handle_of(face, broker, working(work))
    await told(agent.run(*([] if first is None else [first]), run_key="order-1"))
    with pytest.raises(errors.RunEnded, match="another input than this one") as over:
        await told(agent.run({**INPUT, "order": "992"}, run_key="order-1"))
    assert (over.value.other_input, over.value.recorded, over.value.result) == (True, False, None)
    assert (over.value.state, work.calls) == ("completed", 1)


@faces
async def test_a_run_that_failed_is_not_taken_for_done(face: Face, broker: TestBroker, work: Work) -> None:
    async with face.run("order-1", agent="agent", url=broker.url, workload_key=broker.key_of("agent")) as held:
        await face.call(held.fail, {"why": "no stock"})
    agent = handle_of(face, broker, working(work))
    with pytest.raises(errors.RunEnded, match="is failed, and that is final") as over:
        await told(agent.run(run_key="order-1"))
    assert (over.value.state, over.value.result, work.calls) == ("failed", {"why": "no stock"}, 0)


@faces
async def test_a_block_is_told_all_of_it(face: Face, broker: TestBroker, work: Work) -> None:
    at: dict[str, Any] = {"url": broker.url, "workload_key": broker.key_of("agent")}
    async with face.run("order-1", **at) as held:
        held.result = RESULT
    with pytest.raises(errors.RunEnded) as over:
        async with face.run("order-1", **at):
            pytest.fail("nobody may enter")
    same = pickle.loads(pickle.dumps(over.value))  # noqa: S301 - just made
    for error in (over.value, same):
        assert (error.run_key, error.run, error.state, error.recorded) == ("order-1", held.id, "completed", True)
        assert error.result == RESULT
        assert str(error) == (
            f"run 'order-1' ({held.id}) is completed, and that is final; nothing was done now. Its result is the "
            "`result` of this error; a new run needs another key"
        )
    assert "charged" not in repr(over.value)
    assert over.value.__suppress_context__
    assert work.calls == 0


@faces
async def test_starting_it_again_is_told_the_same(face: Face, broker: TestBroker, work: Work) -> None:
    agent = handle_of(face, broker, working(work))
    await told(agent.run(INPUT, run_key="order-1"))
    with pytest.raises(errors.RunEnded) as over:
        await told(agent.start(INPUT, run_key="order-1"))
    assert (over.value.run_key, over.value.state, over.value.result) == ("order-1", "completed", RESULT)


@faces
async def test_the_end_of_another_run_is_not_the_result_of_this_one(face: Face, broker: TestBroker, work: Work) -> None:
    """The function finds another run over, and says so: it has no result, however that other run ended."""
    await told(handle_of(face, broker, working(work)).run(INPUT, run_key="order-1"))
    at: dict[str, Any] = {"url": broker.url, "workload_key": broker.key_of("agent")}

    def inner(_: Any) -> Any:
        with stepgrant.run("order-1", agent="agent", **at):
            pytest.fail("nobody may enter")

    async def ainner(_: Any) -> Any:
        async with stepgrant.run("order-1", agent="agent", **at):
            pytest.fail("nobody may enter")

    outer = handle_of(face, broker, ainner if isinstance(face, Asynchronous) else inner)
    with pytest.raises(errors.RunEnded) as over:
        await told(outer.run(INPUT, run_key="order-2"))
    assert (over.value.run_key, over.value.recorded) == ("order-1", True)


def erase(broker: TestBroker, run: str) -> None:
    """As an operator does."""
    headers = {"Authorization": f"Bearer {broker.host.operator('ann')}", "Idempotency-Key": str(uuid.uuid4())}
    httpx.post(f"{broker.url}/v1/runs/{run}/erase", headers=headers, json={}).raise_for_status()


@faces
@pytest.mark.parametrize("result", [RESULT, None], ids=["with a result", "without"])
async def test_what_was_erased_is_not_given_back(face: Face, broker: TestBroker, work: Work, result: Any) -> None:
    """Not even that there was none: whether it had this input cannot be told any more."""
    work.result = result
    agent = handle_of(face, broker, working(work))
    await told(agent.run(INPUT, run_key="order-1"))
    run = only(broker).id
    erase(broker, run)

    with pytest.raises(errors.RunEnded, match=f"`stepgrant run show {run}` tells") as over:
        await told(agent.run(INPUT, run_key="order-1"))
    assert (over.value.recorded, over.value.result, over.value.other_input) == (False, None, False)
    assert work.calls == 1


@faces
async def test_a_run_of_another_workload_is_not_read(face: Face, broker: TestBroker, work: Work) -> None:
    await told(handle_of(face, broker, working(work)).run(INPUT, run_key="order-1"))
    other = broker.host.enroll("other", agents=["agent"])
    with pytest.raises(errors.RunEnded, match=r"run 'order-1' \(run_\w+\) is completed") as over:
        async with face.run("order-1", url=broker.url, workload_key=other):
            pytest.fail("nobody may enter")
    assert (over.value.run, over.value.state) == (only(broker).id, "completed")
    assert (over.value.recorded, over.value.result) == (False, None)
