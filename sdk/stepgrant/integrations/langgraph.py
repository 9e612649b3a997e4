"""LangGraph and LangChain agents under Stepgrant: `pip install 'stepgrant[langgraph]'`.

    from stepgrant.integrations.langgraph import Middleware, TripwireSerde, thread

    agent = create_agent(model, [refund], middleware=[Middleware()], checkpointer=saver)
    with thread(agent, config, agent="billing"):
        agent.invoke({"messages": [...]}, config)

Rules:
* `Middleware` comes last in the list: what edits arguments or asks people (`HumanInTheLoopMiddleware`) stands before
  it, so that what is decided on is what runs. Other arguments at the tool than were decided on are refused.
* Each call of a tool is a step under the call's id. Tools are declared with `@stepgrant.tool` or `stepgrant.declare`;
  one that nobody declared is `once`.
* A person who has to answer, or a doubt, pauses the graph. Resume with `graph.invoke(None, config)`, or any
  `Command(resume=...)`: the value is not read, the broker is asked again.
* Denied, failed before, and results that were withheld are told to the model; what stops this process (`StaleEpoch`,
  `BrokerUnavailable`, ...) leaves `invoke` as an exception, and no model sees it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

try:
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.messages import ToolMessage
    from langgraph.prebuilt.tool_node import AsyncToolCallWrapper, ToolCallRequest, ToolCallWrapper
    from langgraph.types import Command
except ImportError as missing:
    raise ImportError(
        f"stepgrant.integrations.langgraph needs LangGraph ({missing.name} is missing): "
        "pip install 'stepgrant[langgraph]'",
        name=missing.name,
    ) from missing

from stepgrant.integrations._langgraph_adapter import LostIdsWarning
from stepgrant.integrations._langgraph_errors import SecretInCheckpoint
from stepgrant.integrations._langgraph_serde import TripwireSaver, TripwireSerde
from stepgrant.integrations._langgraph_siblings import Siblings
from stepgrant.integrations._langgraph_thread import Thread, apark_unfinished, park_unfinished, thread
from stepgrant.integrations._langgraph_wrap import awrap, wrap

__all__ = [
    "LostIdsWarning",
    "Middleware",
    "SecretInCheckpoint",
    "Thread",
    "ToolNodeWrappers",
    "TripwireSaver",
    "TripwireSerde",
    "apark_unfinished",
    "park_unfinished",
    "thread",
    "tool_node_wrappers",
]


class ToolNodeWrappers(TypedDict):
    """The two arguments of `ToolNode` that Stepgrant needs."""

    wrap_tool_call: ToolCallWrapper
    awrap_tool_call: AsyncToolCallWrapper


def tool_node_wrappers() -> ToolNodeWrappers:
    """For a plain graph: `ToolNode(tools, **tool_node_wrappers())`, for `invoke` and `ainvoke` alike."""
    siblings = Siblings()

    async def guarded(
        request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        async with siblings.flight(_task_of(request)):
            return await awrap(request, execute)

    return {"wrap_tool_call": wrap, "awrap_tool_call": guarded}


class Middleware(AgentMiddleware[Any, Any, Any]):
    """For `create_agent(..., middleware=[..., Middleware()])`, last in the list."""

    @property
    def name(self) -> str:
        """`stepgrant`."""
        return "stepgrant"

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """One step."""
        return wrap(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """One step."""
        return await awrap(request, handler)


def _task_of(request: ToolCallRequest) -> str | None:
    info = request.runtime.execution_info
    return None if info is None else f"{info.checkpoint_ns}/{info.task_id}"
