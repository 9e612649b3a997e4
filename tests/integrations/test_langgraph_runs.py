"""When a thread of LangGraph ends, pauses, or would lose its ids, and what becomes of its run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import stepgrant
from integrations.langgraph_script import CONFIG, GO, Scripted, agent_of, entries, recording
from stepgrant import errors
from stepgrant.integrations.langgraph import LostIdsWarning, Middleware, apark_unfinished, park_unfinished, thread
from stepgrant.testing import TestBroker


def test_paused_run_is_parked_also_in_a_plain_run(broker: TestBroker, means: dict[str, Any]) -> None:
    """`graph.invoke` returns as if all were done; the run must not end with a call that waits."""
    graph = agent_of(Scripted([("pay", {"invoice": "a"}, "c1")]), recording([], "ask"))
    with stepgrant.run("t-1", **means) as run:
        assert graph.invoke(GO, CONFIG)["__interrupt__"]
    parked = entries(broker, run.id, "run_parked")
    assert [one.part("body")["reason"] for one in parked] == ["awaiting_approval"]


def test_call_that_a_person_took_back_keeps_no_run_open(broker: TestBroker, means: dict[str, Any]) -> None:
    """It waited, then it was taken out of the thread: the thread says that nothing is left to do."""
    graph = agent_of(Scripted([("pay", {"invoice": "a"}, "c1")]), recording([], "ask"))
    with thread(graph, CONFIG, **means) as run:
        assert graph.invoke(GO, CONFIG)["__interrupt__"]
        told = ToolMessage(content="never mind", tool_call_id="c1")
        graph.update_state(CONFIG, {"messages": [told]}, as_node="tools")
        graph.invoke(None, CONFIG)
    assert len(entries(broker, run.id, "run_ended")) == 1


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_agent_whose_graph_waits_is_parked(face: str, broker: TestBroker, means: dict[str, Any]) -> None:
    """Also for a pause that is not ours, of which no call of ours knows: the function returns as if all were done."""
    done: list[Any] = []
    asks = HumanInTheLoopMiddleware({"pay": {"allowed_decisions": ["approve"]}})
    graph = agent_of(Scripted([("pay", {"invoice": "a"}, "c1")]), recording(done), before=[asks])
    config: Any = {"configurable": {"thread_id": "t-1"}}
    answer: Any = Command(resume={"decisions": [{"type": "approve"}]})
    left: list[bool] = []
    runs: list[str] = []

    def work(_: Any, run: stepgrant.Run) -> None:  # noqa: ANN401 - the stored input
        runs.append(run.id)
        graph.invoke(answer if graph.get_state(config).next else GO, config)
        left.append(park_unfinished(graph, run))

    async def awork(_: Any, run: stepgrant.AsyncRun) -> None:  # noqa: ANN401 - as above
        runs.append(run.id)
        state = await graph.aget_state(config)
        await graph.ainvoke(answer if state.next else GO, config)
        left.append(await apark_unfinished(graph, run))

    options = {name: value for name, value in means.items() if name != "agent"}
    for _ in range(2):
        if face == "sync":
            stepgrant.agent("billing", **options)(work).run({}, run_key="t-1")
        else:
            await stepgrant.agent("billing", **options)(awork).run({}, run_key="t-1")
    assert left == [True, False]
    assert len(set(runs)) == 1
    assert [one.part("body")["reason"] for one in entries(broker, runs[0], "run_parked")] == ["suspended"]
    assert len(entries(broker, runs[0], "run_ended")) == 1
    assert len(done) == 1


def test_finished_graph_completes_its_run_unless_it_is_kept_open(broker: TestBroker, means: dict[str, Any]) -> None:
    graph = agent_of(Scripted())
    with thread(graph, CONFIG, keep_open=True, **means) as run:
        graph.invoke(GO, CONFIG)
    assert entries(broker, run.id, "run_ended") == []
    with thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert len(entries(broker, run.id, "run_ended")) == 1
    with pytest.raises(errors.RunEnded), thread(graph, CONFIG, **means):
        graph.invoke(GO, CONFIG)


@pytest.mark.parametrize("how", ["exit", "no checkpointer"])
def test_ids_that_a_crash_would_lose_are_warned_of(how: str, means: dict[str, Any]) -> None:
    done: list[Any] = []
    model = Scripted([("pay", {"invoice": "a"}, "c1"), ("pay", {"invoice": "b"}, "c2")])
    saver = InMemorySaver() if how == "exit" else None
    graph = create_agent(model, [recording(done)], middleware=[Middleware()], checkpointer=saver)
    with warnings.catch_warnings(record=True) as heard, stepgrant.run("t-1", **means):
        warnings.simplefilter("always")
        graph.invoke(GO, CONFIG, durability="exit" if how == "exit" else "async")
    assert [how in str(one.message) for one in heard if one.category is LostIdsWarning] == [True]
    assert len(done) == 2


def test_pause_without_a_checkpointer_leaves_the_graph(means: dict[str, Any]) -> None:
    """Nothing is saved that could be resumed, so the caller hears of it."""
    model = Scripted([("pay", {"invoice": "a"}, "c1")])
    graph = create_agent(model, [recording([], "ask")], middleware=[Middleware()])
    with pytest.warns(LostIdsWarning), pytest.raises(errors.ApprovalRequired), stepgrant.run("t-1", **means):
        graph.invoke(GO)


@pytest.mark.parametrize(
    ("config", "options", "why"),
    [
        ({"configurable": {}}, {}, "thread_id"),
        ({"configurable": {"thread_id": "a#b"}}, {}, "'#'"),
        (CONFIG, {"fork": "a#b"}, "'#'"),
    ],
)
def test_thread_that_cannot_be_a_run(config: Any, options: dict[str, str], why: str) -> None:  # noqa: ANN401 - as LangGraph's
    with pytest.raises(errors.ConfigurationError, match=why):
        thread(agent_of(Scripted()), config, agent="billing", **options)  # type: ignore[arg-type]  # each its own


def test_graph_without_a_checkpointer_has_no_thread() -> None:
    with pytest.raises(errors.ConfigurationError, match="no checkpointer"):
        thread(create_agent(Scripted(), []), CONFIG, agent="billing")
