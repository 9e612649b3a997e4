"""Scripted models and small graphs for tests of LangGraph in one process, and a real broker for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import PrivateAttr

import stepgrant
from stepgrant.integrations.langgraph import Middleware, tool_node_wrappers
from stepgrant.receipt import Event
from stepgrant.testing import TestBroker

CONFIG: Any = {"configurable": {"thread_id": "t-1"}}
GO: Any = {"messages": [HumanMessage("go")]}


class Scripted(BaseChatModel):
    """Answers by script, and remembers what it was shown."""

    _turns: list[Any] = PrivateAttr()
    _shown: list[BaseMessage] = PrivateAttr(default_factory=list)

    def __init__(self, *turns: Sequence[tuple[str, dict[str, Any], str]]) -> None:
        super().__init__()
        self._turns = list(turns)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Scripted:  # noqa: ANN401 - as its base
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ANN401 - as its base
        self._shown.extend(messages)
        number = sum(isinstance(one, AIMessage) for one in messages)
        turn = self._turns[number] if number < len(self._turns) else []
        calls: Any = [{"name": name, "args": args, "id": call} for name, args, call in turn]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content="", tool_calls=calls))])

    @property
    def shown(self) -> str:
        """All of it, as text."""
        return "\n".join(str(one.content) for one in self._shown)


def agent_of(model: Scripted, *tools: Any, before: Sequence[Any] = (), after: Sequence[Any] = ()) -> Any:  # noqa: ANN401 - a compiled graph
    return create_agent(model, list(tools), middleware=[*before, Middleware(), *after], checkpointer=InMemorySaver())


def node_of(model: Scripted, *tools: Any, **options: Any) -> Any:  # noqa: ANN401 - a compiled graph
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(list(tools), **options, **tool_node_wrappers()))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=InMemorySaver())


def entries(broker: TestBroker, run: str, kind: str) -> list[Event]:
    return [one for one in broker.entries(run) if one.type == kind]


def recording(done: list[Any], name: str = "pay") -> Callable[..., Any]:
    """A tool that only notes its call."""

    @stepgrant.tool(effect="once", name=name)
    def pay(invoice: str, amount: int = 7) -> dict[str, Any]:
        """Pay."""
        done.append((invoice, amount, stepgrant.current_step().key))
        return {"paid": invoice}

    return pay
