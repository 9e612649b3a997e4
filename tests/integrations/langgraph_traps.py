"""LangGraph's traps, acted out: one program for all of them, one process for each life.

Usage: langgraph_traps.py TRAP FACE SHAPE. The play says what the model asks for, and what the graph is resumed with:
`verdict` is `go on` (`invoke(None)`), `ids` (a value for each pending interrupt), or a bare value. It says the pending
interrupts' values, or the messages of tools.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

import stepgrant
from integrations.langgraph_agent import ScriptedModel
from stepgrant.integrations.langgraph import Middleware, thread, tool_node_wrappers
from stepgrant.testing import Play

AGAIN = "again"


def asking(play: Play, *, asynchronous: bool) -> list[Callable[..., Any]]:
    """Tools that ask a person themselves, inside."""
    if asynchronous:

        @stepgrant.tool(effect="once")
        async def send(text: str) -> Any:  # noqa: ANN401 - JSON
            """Send."""
            return await play.ado("send", text=text)

        @stepgrant.tool(effect="once")
        async def order(item: str) -> Any:  # noqa: ANN401 - JSON
            """Order, after a question."""
            return {"item": item, "many": interrupt("how many?")}

        return [send, order]

    @stepgrant.tool(effect="once", name="send")
    def sync_send(text: str) -> Any:  # noqa: ANN401 - JSON
        """Send."""
        return play.do("send", text=text)

    @stepgrant.tool(effect="once", name="order")
    def sync_order(item: str) -> Any:  # noqa: ANN401 - JSON
        """Order, after a question."""
        return {"item": item, "many": interrupt("how many?")}

    sync_send.__name__, sync_order.__name__ = "send", "order"
    return [sync_send, sync_order]


def graph_of(play: Play, trap: str, shape: str, saver: Any, *, asynchronous: bool) -> Any:  # noqa: ANN401 - graphs
    """The trap's graph."""
    model = ScriptedModel(play)
    tools = asking(play, asynchronous=asynchronous)
    if shape == "agent":
        edits = [HumanInTheLoopMiddleware({"send": {"allowed_decisions": ["edit"]}})] if trap == "edit" else []
        return create_agent(model, tools, middleware=[*edits, Middleware()], checkpointer=saver)
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools, **tool_node_wrappers()))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def given(play: Play, state: Any) -> Any:  # noqa: ANN401 - what LangGraph takes
    """What the graph is invoked with in this life."""
    if not play.going_on:
        return {"messages": [HumanMessage("do it")]}
    if play.verdict == "go on":
        return None
    if play.verdict == "ids":
        return Command(resume={one.id: "three" for one in state.interrupts})
    return Command(resume=json.loads(play.verdict) if play.verdict.startswith("{") else play.verdict)


def outcome(said: Any) -> str:  # noqa: ANN401 - a graph's values
    """What the graph waits for, or what its tools gave."""
    waits = [one.value for one in said.get("__interrupt__") or ()]
    gave = [one.content for one in said["messages"] if isinstance(one, ToolMessage)]
    return json.dumps({"waits": waits, "gave": gave})


def first_call(states: Any) -> Any:  # noqa: ANN401 - a checkpoint's config
    """The oldest checkpoint before tools: where a time travel goes."""
    return [one.config for one in states if "tools" in one.next][-1]


def sync(play: Play, trap: str, shape: str) -> str:
    """`invoke`."""
    config: Any = {"configurable": {"thread_id": play.thread}}
    connection = sqlite3.connect(play.folder / "checkpoints.sqlite", check_same_thread=False)
    graph = graph_of(play, trap, shape, SqliteSaver(connection), asynchronous=False)
    fork = AGAIN if play.verdict == AGAIN else None
    with thread(graph, config, agent=play.agent, keep_open=True, fork=fork):
        if play.going_on and trap == "travel":
            return outcome(graph.invoke(None, first_call(graph.get_state_history(config)), durability="sync"))
        return outcome(graph.invoke(given(play, graph.get_state(config)), config, durability="sync"))


async def native(play: Play, trap: str, shape: str) -> str:
    """`ainvoke`."""
    config: Any = {"configurable": {"thread_id": play.thread}}
    fork = AGAIN if play.verdict == AGAIN else None
    async with AsyncSqliteSaver.from_conn_string(str(play.folder / "checkpoints.sqlite")) as saver:
        graph = graph_of(play, trap, shape, saver, asynchronous=True)
        async with thread(graph, config, agent=play.agent, keep_open=True, fork=fork):
            if play.going_on and trap == "travel":
                states = [one async for one in graph.aget_state_history(config)]
                return outcome(await graph.ainvoke(None, first_call(states), durability="sync"))
            state = await graph.aget_state(config)
            return outcome(await graph.ainvoke(given(play, state), config, durability="sync"))


def main(trap: str, face: str, shape: str) -> int:
    """One life."""
    play = Play.from_environment()
    if face == "async":
        return play.act_out(lambda: asyncio.run(native(play, trap, shape)))
    return play.act_out(lambda: sync(play, trap, shape))
