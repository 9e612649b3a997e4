"""LangGraph's two hooks around a tool call, `wrap_tool_call` and `awrap_tool_call`, on the one guard.

Rules:
* Arguments that the tool's own schema refuses use up no grant: LangGraph says so to the model its own way.
* A tool that nobody registered does not run, also where other middleware would add it further inside.
* What LangGraph made of an error of a tool (a message, if it was told to) reaches the model as it would without us,
  except where nobody knows what the tool did: then the graph pauses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, cast

from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest

from stepgrant import _errors as e
from stepgrant._adapter import aguard, guard
from stepgrant.integrations._langgraph_adapter import Answer, LangGraphAdapter, Native, NotRun
from stepgrant.integrations._langgraph_answers import adrop_stray_answer, drop_stray_answer
from stepgrant.integrations._langgraph_errors import bubbling
from stepgrant.integrations._langgraph_tools import InvalidArguments, Watched, arguments_of

__all__ = ["awrap", "wrap"]

Handler: TypeAlias = Callable[[ToolCallRequest], Answer]
AsyncHandler: TypeAlias = Callable[[ToolCallRequest], Awaitable[Answer]]


_adapter: Final = LangGraphAdapter()


def wrap(request: ToolCallRequest, handler: Handler) -> Answer:
    """What `wrap_tool_call` does."""
    try:
        native = _native(request)
    except InvalidArguments:
        return handler(_only_checked(request))
    except e.StepgrantError as error:
        raise bubbling(error) from error
    if native is None:
        return _unknown(request)
    drop_stray_answer(request)

    def invoke() -> Answer:
        try:
            message = handler(native.override())
        except Exception as error:  # noqa: BLE001  # raised again, as what it means
            native.failed(error)
        return native.ran(message)

    try:
        return guard(_adapter, native, invoke)
    except NotRun as not_run:
        return _as_without_us(not_run)
    except Exception as error:  # noqa: BLE001  # raised again, or the message that LangGraph made of it
        return _shown(native, error)


async def awrap(request: ToolCallRequest, handler: AsyncHandler) -> Answer:
    """What `awrap_tool_call` does."""
    try:
        native = _native(request)
    except InvalidArguments:
        return await handler(_only_checked(request))
    except e.StepgrantError as error:
        raise bubbling(error) from error
    if native is None:
        return _unknown(request)
    await adrop_stray_answer(request)

    async def invoke() -> Answer:
        try:
            message = await handler(native.override())
        except Exception as error:  # noqa: BLE001  # as above
            native.failed(error)
        return native.ran(message)

    try:
        return await aguard(_adapter, native, invoke)
    except NotRun as not_run:
        return _as_without_us(not_run)
    except Exception as error:  # noqa: BLE001  # raised again, or the message that LangGraph made of it
        return _shown(native, error)


def _native(request: ToolCallRequest) -> Native | None:
    if request.tool is None:
        return None
    args = arguments_of(request.tool, request.tool_call["args"])
    return Native(request, Watched(request.tool, args), args)


def _only_checked(request: ToolCallRequest) -> ToolCallRequest:
    """The request with a tool whose body never runs: LangGraph finds the wrong arguments, and says it its own way."""
    tool = request.tool
    return request if tool is None else request.override(tool=Watched(tool, None).tool)


def _unknown(request: ToolCallRequest) -> ToolMessage:
    """Closed: what might add a tool after us would run it without a step."""
    call = request.tool_call
    text = f"Error: {call['name']} is not a valid tool."
    return ToolMessage(content=text, name=call["name"], tool_call_id=call["id"] or "", status="error")


def _as_without_us(not_run: NotRun) -> Answer:
    if not_run.message is not None:
        return not_run.message
    raise cast("Exception", not_run.error)


def _shown(native: Native, error: Exception) -> Answer:
    if native.shown is not None and error is native.watched.raised:
        return native.shown
    raise error
