"""LangGraph's two hooks around a tool call, `wrap_tool_call` and `awrap_tool_call`, on the one guard.

Rules:
* Arguments that the tool's own schema refuses use up no grant: LangGraph says so to the model its own way. A tool whose
  body cannot be watched is not called to find that out: it might run with them, and without a step.
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
from stepgrant.integrations._langgraph_tools import InvalidArguments, Watched, arguments_of, handed_on

__all__ = ["awrap", "wrap"]

Handler: TypeAlias = Callable[[ToolCallRequest], Answer]
AsyncHandler: TypeAlias = Callable[[ToolCallRequest], Awaitable[Answer]]


_adapter: Final = LangGraphAdapter()


def wrap(request: ToolCallRequest, handler: Handler) -> Answer:
    """What `wrap_tool_call` does."""
    try:
        native = _native(request)
    except InvalidArguments as wrong:
        checked = _only_checked(request)
        return _error(request, str(wrong)) if checked is None else handler(checked)
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
    except InvalidArguments as wrong:
        checked = _only_checked(request)
        return _error(request, str(wrong)) if checked is None else await handler(checked)
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
    call = request.tool_call
    args = arguments_of(request.tool, call["args"])
    watched = Watched(request.tool, args)
    if not watched.conclusive:
        # Its body may read the call itself: what the schema drops or changes would be there, and was not decided on.
        request = request.override(tool_call={**call, "args": handed_on(request.tool, call["args"], args)})
    return Native(request, watched, args)


def _only_checked(request: ToolCallRequest) -> ToolCallRequest | None:
    """The request with a tool whose body never runs: LangGraph finds the wrong arguments, and says it its own way.

    `None` if nothing keeps the body from running.
    """
    watched = None if request.tool is None else Watched(request.tool, None)
    return request.override(tool=watched.tool) if watched is not None and watched.conclusive else None


def _unknown(request: ToolCallRequest) -> ToolMessage:
    """Closed: what might add a tool after us would run it without a step."""
    return _error(request, f"{request.tool_call['name']} is not a valid tool.")


def _error(request: ToolCallRequest, text: str) -> ToolMessage:
    call = request.tool_call
    return ToolMessage(content=f"Error: {text}", name=call["name"], tool_call_id=call["id"] or "", status="error")


def _as_without_us(not_run: NotRun) -> Answer:
    if not_run.message is not None:
        return not_run.message
    raise cast("Exception", not_run.error)


def _shown(native: Native, error: Exception) -> Answer:
    if native.shown is not None and error is native.watched.raised:
        return native.shown
    raise error
