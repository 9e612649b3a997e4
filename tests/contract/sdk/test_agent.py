"""`@stepgrant.agent`: a function that is a run, in both colours, over the real broker."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import stepgrant
from agents import tool_of
from faces import Asynchronous, Face, coroutine_function, faces
from shop import Shop
from stepgrant import errors
from stepgrant._errors import ConfigurationError
from stepgrant.testing import TestBroker


async def told(value: Any) -> Any:
    """What a method of a handle gives, in either colour."""
    return await value if inspect.isawaitable(value) else value


def handle_of(face: Face, broker: TestBroker, function: Callable[..., Any], **options: Any) -> Any:
    """The function as an agent of this colour."""
    if isinstance(face, Asynchronous):
        function = coroutine_function(function) if not inspect.iscoroutinefunction(function) else function
    at: dict[str, Any] = {"url": broker.url, "workload_key": broker.key_of("agent")}
    return stepgrant.agent("agent", **at, **options)(function)


@faces
async def test_started_here_and_run_there_with_the_stored_input(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    seen: list[Any] = []

    def work(order: Any, run: Any) -> dict[str, Any]:
        seen.append((order, run.epoch, run.resumed))
        return {"done": order["lines"]}

    agent = handle_of(face, broker, work, version="3", labels={"team": "x"})
    ref = await told(agent.start({"lines": (1, 2)}, run_key="order-1"))

    assert (ref.run_key, broker.host.run(ref.run).park_reason) == ("order-1", "queued")  # type: ignore[attr-defined]
    assert await told(agent.resume("order-1")) == {"done": [1, 2]}
    assert seen == [({"lines": [1, 2]}, 2, True)]
    run = broker.host.run(ref.run)  # type: ignore[attr-defined]
    assert (run.state.value, run.agent_version, run.labels) == ("completed", "3", {"team": "x"})
    assert [entry.type for entry in broker.entries(ref.run)] == ["run_opened", "run_parked", "run_resumed", "run_ended"]


@faces
async def test_starting_again_changes_nothing_and_a_used_up_key_is_told(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    agent = handle_of(face, broker, lambda order: order)
    ref = await told(agent.start({"a": 1}, run_key="order-1"))
    before = len(broker.entries(ref.run))
    assert await told(agent.start({"a": 1}, run_key="order-1")) == ref
    with pytest.raises(errors.BrokerError) as other:
        await told(agent.start({"a": 2}, run_key="order-1"))
    assert (other.value.code, len(broker.entries(ref.run))) == ("duplicate_request", before)
    await told(agent.run({"a": 1}, run_key="order-1"))
    with pytest.raises(errors.RunEnded):
        await told(agent.start({"a": 1}, run_key="order-1"))
    assert len(broker.host.runs()) == 1  # type: ignore[attr-defined]


@faces
async def test_what_it_raises_parks_the_run_and_why_is_told(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge, tries = tool_of(face, shop, "charge"), list[str]()

    async def awork(order: str) -> None:
        await face.call(charge, order)
        tries.append(order)
        if len(tries) == 1:
            raise ValueError(f"no such order, {'x' * 600}")

    def work(order: str) -> None:
        charge(order)
        tries.append(order)
        if len(tries) == 1:
            raise ValueError(f"no such order, {'x' * 600}")

    agent = handle_of(face, broker, awork if isinstance(face, Asynchronous) else work)
    with pytest.raises(ValueError, match="no such order"):
        await told(agent.run("9", run_key="order-1"))
    run = broker.host.runs()[0]  # type: ignore[attr-defined]
    receipt = broker.receipt(run.id)
    assert run.park_reason == "error"
    said = [one for one in receipt["disclosures"] if one["field"] == "park.detail"]
    assert len(said) == 1
    assert str(said[0]["value"]).startswith("ValueError: no such order")
    assert len(str(said[0]["value"])) == 500

    await told(agent.resume("order-1"))

    assert (tries, shop.done("charge")) == (["9", "9"], 1)


@faces
async def test_resume_opens_nothing_new(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    agent = handle_of(face, broker, lambda _: pytest.fail("nothing to run"))
    with pytest.raises(errors.BrokerError) as unknown:
        await told(agent.resume("order-1"))
    assert unknown.value.code == "unknown_run"
    assert broker.host.runs() == ()  # type: ignore[attr-defined]


@faces
async def test_without_a_key_the_broker_names_the_run(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})
    agent = handle_of(face, broker, lambda: "done")
    ref = await told(agent.start())
    assert ref.run_key.startswith("auto-")
    assert await told(agent.resume(ref.run_key)) == "done"


@faces
async def test_a_run_that_it_ends_itself_stays_as_it_ended_it(face: Face, broker: TestBroker) -> None:
    broker.allow("agent", {})

    async def agives_up(_: Any, run: Any) -> str:
        await run.fail({"why": "no"})
        return "no"

    def gives_up(_: Any, run: Any) -> str:
        run.fail({"why": "no"})
        return "no"

    agent = handle_of(face, broker, agives_up if isinstance(face, Asynchronous) else gives_up)
    assert await told(agent.run(1, run_key="order-1")) == "no"
    assert [run.state.value for run in broker.host.runs()] == ["failed"]  # type: ignore[attr-defined]


@faces
async def test_a_denied_agent_starts_nothing(face: Face, broker: TestBroker) -> None:
    broker.key_of("agent")
    agent = handle_of(face, broker, lambda order: order)
    with pytest.raises(errors.Denied):
        await told(agent.start(1, run_key="order-1"))
    assert broker.host.runs() == ()  # type: ignore[attr-defined]


def test_a_handle_is_the_function_too() -> None:
    @stepgrant.agent("agent")
    def double(number: int) -> int:
        """Twice."""
        return 2 * number

    assert (double(4), double.function.__name__, double.__doc__, double.name) == (8, "double", "Twice.", "agent")
    assert isinstance(double, stepgrant.Agent)
    assert repr(double).startswith("<agent agent: ")


def test_a_function_that_takes_something_else_is_no_agent() -> None:
    def three(_: Any, __: Any, ___: Any) -> None: ...

    def keyword(*, _: Any) -> None: ...

    functions: list[Callable[..., Any]] = [three, keyword]  # a type checker says so itself
    for function in functions:
        with pytest.raises(ConfigurationError, match="takes the input"):
            stepgrant.agent("agent")(function)
