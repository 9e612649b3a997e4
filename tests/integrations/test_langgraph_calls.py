"""LangGraph calls that must not go through, and what is recorded of those that do: in one process, a real broker."""

from __future__ import annotations

import asyncio
import pickle
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId
from langchain_core.tools import tool as langchain_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command

import stepgrant
from integrations.langgraph_script import CONFIG, GO, Scripted, agent_of, entries, node_of, recording
from stepgrant import errors
from stepgrant.integrations.langgraph import Middleware, thread, tool_node_wrappers
from stepgrant.testing import TestBroker

# ------------------------------------------------------------------------------------------------ nothing is done


def test_command_is_refused_before_the_tool_runs(broker: TestBroker, means: dict[str, Any]) -> None:
    done: list[str] = []

    @langchain_tool
    def plain(text: str) -> Command[str] | str:
        """Do something."""
        done.append(text)
        return Command(goto="model")

    graph = agent_of(Scripted([("plain", {"text": "a"}, "c1")]), plain)
    with pytest.raises(errors.ConfigurationError, match="returns a Command"), thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert done == []
    assert entries(broker, run.id, "step_prepared") == []


def test_thread_under_another_run_key_is_refused(broker: TestBroker, means: dict[str, Any]) -> None:
    """The same call in another run would be another step, and be done again."""
    done: list[Any] = []
    model = Scripted([("pay", {"invoice": "a"}, "c1")])
    graph = agent_of(model, recording(done))
    with pytest.raises(errors.ConfigurationError, match="must be the same"), stepgrant.run("other", **means) as run:
        graph.invoke(GO, CONFIG)
    assert done == []
    assert entries(broker, run.id, "step_prepared") == []


def test_call_outside_of_a_run_leaves_the_graph() -> None:
    """Also where ToolNode was told to show every exception to the model."""
    done: list[Any] = []
    model = Scripted([("pay", {"invoice": "a"}, "c1")])
    graph = node_of(model, recording(done), handle_tool_errors=True)
    with pytest.raises(errors.ConfigurationError, match="outside of a run") as raised:
        graph.invoke(GO, CONFIG)
    assert isinstance(raised.value, GraphBubbleUp)
    assert done == []


def test_lost_run_is_no_message_to_the_model(means: dict[str, Any]) -> None:
    """A model that hears of it asks again under another id."""
    done: list[Any] = []
    model = Scripted([("pay", {"invoice": "a"}, "c1")])
    graph = node_of(model, recording(done), handle_tool_errors=True)
    with thread(graph, CONFIG, **means) as run:
        run.park()
        with pytest.raises(errors.StaleEpoch) as raised:
            graph.invoke(GO, CONFIG)
    assert isinstance(raised.value, GraphBubbleUp)
    assert done == []
    assert "parked" not in model.shown
    copied = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - made here
    assert isinstance(copied, errors.StaleEpoch)
    assert isinstance(copied, GraphBubbleUp)
    assert str(copied) == str(raised.value)


class Editing(AgentMiddleware[Any, Any, Any]):
    """Changes arguments where it stands."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:  # noqa: ANN401 - as its base
        call = {**request.tool_call, "args": {**request.tool_call["args"], "amount": 9000}}
        return handler(request.override(tool_call=call))


@pytest.mark.parametrize("declared", [True, False], ids=["decorated", "plain"])
def test_arguments_changed_inside_of_us_do_not_run(*, declared: bool, means: dict[str, Any]) -> None:
    """What was decided on is not what would run: nothing does."""
    done: list[Any] = []

    def plain(invoice: str, amount: int) -> str:
        """Pay."""
        done.append((invoice, amount))
        return "paid"

    name = "pay" if declared else "plain"
    tool = recording(done) if declared else plain
    graph = agent_of(Scripted([(name, {"invoice": "a", "amount": 1}, "c1")]), tool, after=[Editing()])
    with pytest.raises(errors.NotExecuted, match="decided on"), thread(graph, CONFIG, **means):
        graph.invoke(GO, CONFIG)
    assert done == []


def test_arguments_changed_outside_of_us_are_decided_on(means: dict[str, Any]) -> None:
    done: list[Any] = []
    graph = agent_of(Scripted([("pay", {"invoice": "a"}, "c1")]), recording(done), before=[Editing()])
    with thread(graph, CONFIG, **means):
        graph.invoke(GO, CONFIG)
    assert done == [("a", 9000, "c1")]


def test_what_cannot_be_called_uses_up_no_grant(broker: TestBroker, means: dict[str, Any]) -> None:
    """Wrong arguments, and a tool that nobody registered: LangGraph's own words, and no step."""
    done: list[Any] = []
    model = Scripted([("pay", {"invoice": "a", "amount": "much"}, "c1"), ("nothing", {}, "c2")])
    graph = agent_of(model, recording(done))
    with thread(graph, CONFIG, **means) as run:
        said = graph.invoke(GO, CONFIG)
    gave = [one for one in said["messages"] if isinstance(one, ToolMessage)]
    assert [one.status for one in gave] == ["error", "error"]
    assert "valid integer" in str(gave[0].content)
    assert "nothing is not a valid tool" in str(gave[1].content)
    assert done == []
    assert entries(broker, run.id, "step_prepared") == []


class Adding(AgentMiddleware[Any, Any, Any]):
    """Gives a tool that nobody registered to calls that come by."""

    def __init__(self, tool: Any) -> None:  # noqa: ANN401 - of LangChain
        super().__init__()
        self._tool = tool

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:  # noqa: ANN401 - as its base
        return handler(request.override(tool=self._tool))


@pytest.mark.parametrize("where", ["before", "after"])
def test_tool_that_is_added_inside_of_us_does_not_run(where: str, broker: TestBroker, means: dict[str, Any]) -> None:
    """It would run without a step. Added outside, it is a tool like any other."""
    done: list[Any] = []
    added = langchain_tool(recording(done))
    graph = agent_of(Scripted([("pay", {"invoice": "a"}, "c1")]), **{where: [Adding(added)]})
    with thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert len(done) == len(entries(broker, run.id, "step_completed")) == (where == "before")


# ------------------------------------------------------------------------------------------------ what is recorded


def test_arguments_are_those_of_the_body(means: dict[str, Any]) -> None:
    """With defaults, and as the schema made them: "5" is 5."""
    done: list[Any] = []
    graph = agent_of(
        Scripted([("pay", {"invoice": "a"}, "c1"), ("pay", {"invoice": "b", "amount": "5"}, "c2")]), recording(done)
    )
    with thread(graph, CONFIG, **means):
        graph.invoke(GO, CONFIG)
    assert sorted(done) == [("a", 7, "c1"), ("b", 5, "c2")]


@pytest.mark.parametrize("declared", [True, False], ids=["decorated", "plain"])
def test_what_langgraph_injects_is_no_part_of_the_action(
    broker: TestBroker, means: dict[str, Any], *, declared: bool
) -> None:
    """State, runtime and call id reach the tool, and neither the digest nor the ledger."""
    got: list[Any] = []

    def plain(
        text: str,
        state: Annotated[dict[str, Any], InjectedState],
        runtime: ToolRuntime[None, Any],
        call: Annotated[str, InjectedToolCallId],
    ) -> str:
        """Do."""
        got.append((text, state["messages"][0].content, runtime.tool_call_id, call))
        return text

    tool = stepgrant.tool(effect="once")(plain) if declared else plain
    graph = agent_of(Scripted([("plain", {"text": "a"}, "c1")]), tool)
    with thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert got == [("a", "go", "c1", "c1")]
    assert len(entries(broker, run.id, "step_completed")) == 1


def test_error_that_langgraph_made_a_message_of_is_no_result(broker: TestBroker, means: dict[str, Any]) -> None:
    """Recorded as failed; the model hears of it as LangGraph was told to say it."""

    @stepgrant.tool(effect="read")
    def look(topic: str) -> str:
        """Look."""
        raise LookupError(topic)

    model = Scripted([("look", {"topic": "a"}, "c1")])
    graph = node_of(model, look, handle_tool_errors="that went wrong")
    with thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert "that went wrong" in model.shown
    assert len(entries(broker, run.id, "step_failed")) == 1
    assert entries(broker, run.id, "step_completed") == []


def test_undeclared_tool_is_once(broker: TestBroker, means: dict[str, Any]) -> None:
    def plain(text: str) -> str:
        """Do."""
        return text

    graph = agent_of(Scripted([("plain", {"text": "a"}, "c1")]), plain)
    with thread(graph, CONFIG, **means) as run:
        graph.invoke(GO, CONFIG)
    assert entries(broker, run.id, "step_prepared")[0].part("action")["effect"] == "once"


async def test_siblings_land_before_one_leaves(broker: TestBroker, means: dict[str, Any]) -> None:
    """`ToolNode.ainvoke` gathers: an effect in flight would be left behind by its sibling's exception."""
    release = asyncio.Event()

    @stepgrant.tool(effect="read")
    async def look(topic: str) -> str:
        """Fail at once."""
        release.set()
        raise LookupError(topic)

    @stepgrant.tool(effect="once")
    async def pay(invoice: str) -> str:
        """Take a moment."""
        await release.wait()
        await asyncio.sleep(0.3)
        return invoice

    model = Scripted([("look", {"topic": "a"}, "c1"), ("pay", {"invoice": "b"}, "c2")])
    graph = node_of(model, look, pay)
    with pytest.raises(LookupError):
        async with thread(graph, CONFIG, **means) as run:
            await graph.ainvoke(GO, CONFIG)
    assert [one.step for one in entries(broker, run.id, "step_completed")] == ["c2"]


def test_subgraph_calls_have_their_nodes_in_their_ids(means: dict[str, Any]) -> None:
    """A parent and its subgraph may use the same call id: two steps."""
    done: list[Any] = []
    pay = recording(done)
    inner = create_agent(Scripted([("pay", {"invoice": "inner"}, "c1")]), [pay], middleware=[Middleware()])
    outer = StateGraph(MessagesState)
    model = Scripted([("pay", {"invoice": "outer"}, "c1")])
    outer.add_node("research", lambda _: {"messages": inner.invoke(GO)["messages"][-1:]})
    outer.add_node("model", lambda _: {"messages": [model.invoke([])]})
    outer.add_node("tools", ToolNode([pay], **tool_node_wrappers()))
    outer.add_edge(START, "research")
    outer.add_edge("research", "model")
    outer.add_edge("model", "tools")
    graph: Any = outer.compile(checkpointer=InMemorySaver())
    with thread(graph, CONFIG, **means):
        graph.invoke(GO, CONFIG)
    assert sorted(done) == [("inner", 7, "research:c1"), ("outer", 7, "c1")]
