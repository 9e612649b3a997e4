"""A LangGraph agent that acts out a play of the adapter suite: the harness's program.

Usage: langgraph_agent.py FACE SHAPE. FACE: `sync` or `async`. SHAPE: `agent` (create_agent with the middleware), `node`
(a plain graph around ToolNode), `node-errors` (as `node`, told to show every exception to the model).
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command
from pydantic import PrivateAttr

from stepgrant.integrations.langgraph import (
    Middleware,
    TripwireSaver,
    TripwireSerde,
    thread,
    tool_node_wrappers,
)
from stepgrant.testing import Play


class Saver(TripwireSaver, SqliteSaver):
    """As the README says."""


class AsyncSaver(TripwireSaver, AsyncSqliteSaver):
    """As the README says."""


class ScriptedModel(BaseChatModel):
    """Answers what the play says, as many answers in as there are in the conversation."""

    _play: Play = PrivateAttr()

    def __init__(self, play: Play) -> None:
        super().__init__()
        self._play = play

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> ScriptedModel:  # noqa: ANN401 - no matter
        """It knows what to call."""
        self._play.shown([getattr(one, "name", str(one)) for one in tools])
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ANN401 - as its base
        for message in messages:
            self._play.shown(message)
        turn = self._play.turn(sum(isinstance(one, AIMessage) for one in messages))
        calls = [] if isinstance(turn, str) else [{"name": c.tool, "args": dict(c.args), "id": c.id} for c in turn]
        said = AIMessage(content=turn if isinstance(turn, str) else "", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=said)])


def odd_tool(play: Play, *, asynchronous: bool) -> BaseTool:
    """A tool that says too late that it returns what cannot be given back in a resumed graph."""
    if asynchronous:

        async def odd(text: str) -> Any:  # noqa: ANN401 - that is the point
            """Do something odd."""
            await play.ado("odd", text=text)
            return Command(goto="__end__", graph=Command.PARENT)

        return tool(odd)

    def blocking(text: str) -> Any:  # noqa: ANN401 - as above
        """Do something odd."""
        play.do("odd", text=text)
        return Command(goto="__end__", graph=Command.PARENT)

    return tool("odd")(blocking)


def graph_of(play: Play, shape: str, saver: Any, *, asynchronous: bool) -> Any:  # noqa: ANN401 - compiled graphs
    """The graph of this shape."""
    tools: list[Callable[..., Any] | BaseTool] = [*play.tools(asynchronous=asynchronous)]
    tools.append(odd_tool(play, asynchronous=asynchronous))
    model = ScriptedModel(play)
    if shape == "agent":
        return create_agent(model, tools, middleware=[Middleware()], checkpointer=saver)
    wrappers = tool_node_wrappers()
    node = (
        ToolNode(tools, handle_tool_errors=True, **wrappers) if shape == "node-errors" else ToolNode(tools, **wrappers)
    )
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def edited(play: Play, state: Any) -> list[AIMessage]:  # noqa: ANN401 - a snapshot
    """The model's last message with other arguments, as a person may write them into the thread."""
    last: AIMessage = state.values["messages"][-1]
    calls = [{**call, "args": dict(play.edits.get(str(call["id"]), call["args"]))} for call in last.tool_calls]
    return [AIMessage(content=last.content, id=last.id, tool_calls=calls)]


def given(play: Play, state: Any) -> Any:  # noqa: ANN401 - what LangGraph takes
    """What the graph is invoked with: the question, nothing (go on), or some answer to a pause, which means nothing."""
    if not play.going_on or not state.values:
        return {"messages": [HumanMessage("do it")]}
    return Command(resume="yes, go ahead") if len(state.interrupts) == 1 else None


def outcome(said: Any) -> str:  # noqa: ANN401 - a graph's values
    """`paused`, or the last words."""
    return "paused" if said.get("__interrupt__") else str(said["messages"][-1].content)


def sync(play: Play, shape: str) -> str:
    """`invoke`."""
    config: Any = {"configurable": {"thread_id": play.thread}}
    connection = sqlite3.connect(play.folder / "checkpoints.sqlite", check_same_thread=False)
    graph = graph_of(play, shape, Saver(connection, serde=TripwireSerde()), asynchronous=False)
    with thread(graph, config, agent=play.agent):
        if play.edits:
            graph.update_state(config, {"messages": edited(play, graph.get_state(config))}, as_node="model")
        return outcome(graph.invoke(given(play, graph.get_state(config)), config, durability="sync"))


async def asynchronous(play: Play, shape: str) -> str:
    """`ainvoke`."""
    config: Any = {"configurable": {"thread_id": play.thread}}
    async with AsyncSaver.from_conn_string(str(play.folder / "checkpoints.sqlite")) as saver:
        saver.serde = TripwireSerde()
        graph = graph_of(play, shape, saver, asynchronous=True)
        async with thread(graph, config, agent=play.agent):
            if play.edits:
                before = await graph.aget_state(config)
                await graph.aupdate_state(config, {"messages": edited(play, before)}, as_node="model")
            return outcome(await graph.ainvoke(given(play, await graph.aget_state(config)), config, durability="sync"))


def main(face: str, shape: str) -> int:
    """One life."""
    play = Play.from_environment()
    if face == "async":
        return play.act_out(lambda: asyncio.run(asynchronous(play, shape)))
    return play.act_out(lambda: sync(play, shape))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
