"""A LangGraph agent: a model that asks for two tools, one of them `once`, and draws new ids whenever it is asked."""

from __future__ import annotations

import sqlite3
import sys
import uuid
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.sqlite import SqliteSaver

import stepgrant
from stepgrant.integrations.langgraph import Middleware, TripwireSaver, TripwireSerde, thread

BOOK = Path("refunds")
COME_AGAIN = 75
TURNS: list[list[tuple[str, dict[str, Any]]]] = [
    [("look_up", {"order": "991"})],
    [("refund", {"order": "991", "amount": 40})],
    [],
]


def was_it_refunded(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """Look into the book."""
    done = BOOK.exists() and step.idempotency_key in BOOK.read_text(encoding="utf-8").split()
    return stepgrant.done("refunded") if done else stepgrant.not_done()


@stepgrant.tool(effect="read")
def look_up(order: str) -> str:
    """Look an order up."""
    return f"order {order} cost 40"


@stepgrant.tool(effect="once", reconcile=was_it_refunded)
def refund(order: str, amount: int) -> str:
    """Refund an order."""
    with BOOK.open("a", encoding="utf-8") as book:
        book.write(f"{stepgrant.current_step().idempotency_key} {order}:{amount}\n")
    return "refunded"


class Saver(TripwireSaver, SqliteSaver):
    """Refuses secrets in checkpoints."""


class Model(BaseChatModel):
    """Says the next turn, with new ids each time that it is asked, as models do."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Model:  # noqa: ANN401 - as its base
        """It knows them."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ANN401 - as its base
        turn = TURNS[sum(isinstance(one, AIMessage) for one in messages)]
        calls = [{"name": name, "args": args, "id": f"call_{uuid.uuid4().hex}"} for name, args in turn]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content="", tool_calls=calls))])


def main() -> int:
    """One life."""
    saver = Saver(sqlite3.connect("checkpoints.sqlite", check_same_thread=False), serde=TripwireSerde())
    graph: Any = create_agent(Model(), [look_up, refund], middleware=[Middleware()], checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "order-991"}}
    with thread(graph, config, agent="billing"):
        known = graph.get_state(config).values
        said = graph.invoke(None if known else {"messages": [HumanMessage("refund it")]}, config, durability="sync")
    assert BOOK.exists() is False or len(BOOK.read_text(encoding="utf-8").splitlines()) == 1
    return COME_AGAIN if said.get("__interrupt__") else 0


if __name__ == "__main__":
    sys.exit(main())
