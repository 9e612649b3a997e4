"""LangGraph's side of the guard: what a tool call is, how results are recorded, how a pause leaves a graph.

Rules (`integrations.md` §2.1; each was found in LangGraph's own source, and has a test):
* The run is the thread. A call in a subgraph has the names of its nodes before its id; task ids are not in it, for a
  time travel makes new ones and would then do every effect again.
* A pause is a `GraphInterrupt` with an id of our own, so that siblings in flight end first, and that is not one of
  `interrupt()`: a value that somebody resumes with is never read (and never taken for an answer to a tool's own
  question, see `_langgraph_answers`).
* What stops this process leaves as a `GraphBubbleUp`, which no error handling of LangGraph shows to a model.
* A `ToolMessage` is recorded without its call id and given back with the one of the call. Anything else a tool may
  return (`Command`, a list) could not be given back in a resumed graph, so it is refused, before the tool runs if its
  type says so.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias
from weakref import WeakSet

from langchain_core.messages import ToolMessage
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt, is_invalid_resume
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Interrupt

from stepgrant import _errors as e
from stepgrant._adapter import Doubt, Refusal, ToolCall
from stepgrant._context import current_frame
from stepgrant._session import Session
from stepgrant.integrations._langgraph_answers import PAUSE, is_saved
from stepgrant.integrations._langgraph_errors import bubbling
from stepgrant.integrations._langgraph_tools import Watched, is_error, returns_command, spec_of

Answer: TypeAlias = ToolMessage | Command[Any]
_MESSAGE: Final = "tool_message"
_KNOWN_ID: Final = "tool_call_id"
_DURABILITY: Final = "__pregel_durability"


class LostIdsWarning(RuntimeWarning):
    """LangGraph saves nothing before the end of this invocation: a crash loses the ids of its calls."""


class NotRun(e.NotExecuted):
    """The body was not entered. Carries what LangGraph made of that."""

    def __init__(self, message: Answer | None, error: Exception | None) -> None:
        super().__init__("the tool's body was not entered")
        self.message = message
        self.error = error


@dataclass
class Native:
    """One call, as the adapter sees it. `shown`: the message that LangGraph made of what the tool raised."""

    request: ToolCallRequest
    watched: Watched
    args: dict[str, Any]
    shown: Answer | None = None

    @property
    def call_id(self) -> str | None:
        """The id of the call; None for a model that gave none."""
        return self.request.tool_call["id"] or None

    def override(self) -> ToolCallRequest:
        """The request, with the tool that notes what its body does."""
        return self.request.override(tool=self.watched.tool)

    def ran(self, message: Answer) -> Answer:
        """The tool's answer. Raises what the body raised, though LangGraph made a message of it."""
        if self.watched.raised is not None:
            self.shown = message
            raise self.watched.raised
        if is_error(message) and self.watched.conclusive and not self.watched.entered:
            raise NotRun(message, None)
        return message

    def failed(self, error: Exception) -> NoReturn:
        """What left the handler: an error before the body says for sure that nothing happened."""
        if self.watched.conclusive and not self.watched.entered and not isinstance(error, GraphBubbleUp):
            raise NotRun(None, error) from error
        raise error


class LangGraphAdapter:
    """Fulfils `stepgrant._adapter.Adapter` for tool calls of LangGraph."""

    def identify(self, native: Native) -> ToolCall:
        """Thread, names of the subgraphs' nodes and call id; with a warning where a crash would lose the ids."""
        tool = native.watched.tool
        if returns_command(tool):
            raise e.ConfigurationError(
                f"{tool.name} returns a Command, which cannot be recorded and given back: {_WHY}"
            )
        info = native.request.runtime.execution_info
        thread = info.thread_id if info is not None else None
        _warn_of_lost_ids()
        path = [] if info is None else [name.partition(":")[0] for name in info.checkpoint_ns.split("|")[:-1]]
        call_id = None if native.call_id is None else ":".join([*path, native.call_id])
        return ToolCall(spec_of(tool), native.args, call_id, thread, native.watched.injected)

    def passes(self, error: BaseException) -> bool:
        """LangGraph's control flow, and a resume value that a tool's `interrupt()` refused."""
        return isinstance(error, GraphBubbleUp) or is_invalid_resume(error)

    def encode(self, native: Native, result: Answer) -> dict[str, Any]:
        """A `ToolMessage`, without the id of the call."""
        if type(result) is not ToolMessage:
            kind = type(result).__name__
            raise e.NotJson(what=f"the result of {native.watched.tool.name}", path="", why=f"a {kind} is not: {_WHY}")
        return {_MESSAGE: result.model_dump(exclude={_KNOWN_ID})}

    def decode(self, native: Native, recorded: Any) -> Answer:  # noqa: ANN401  # any JSON value
        """The message, for this call. What a hook or a person said the result is becomes its content."""
        if isinstance(recorded, dict) and recorded.keys() == {_MESSAGE}:
            return ToolMessage(**{**recorded[_MESSAGE], _KNOWN_ID: native.call_id or ""})
        text = recorded if isinstance(recorded, str) else json.dumps(recorded, ensure_ascii=False)
        return self._message(native, text, "success")

    def denied(self, native: Native, error: Refusal) -> Answer:
        """What the model is told."""
        return self._message(native, _told(native, error), "error")

    def wait(self, native: Native, error: e.ApprovalRequired) -> NoReturn:
        """Pause until a person answered at the broker."""
        told = {"approval_id": error.approval_id, "answer_by": error.answer_by}
        self._pause(native, error, told)

    def doubt(self, native: Native, error: Doubt) -> NoReturn:
        """Pause until it is settled at the broker."""
        if isinstance(error, e.InDoubt):
            told = {"step": error.step, "why": error.why, "attempt": error.attempt, "blocked": error.blocked}
            self._pause(native, error, {**told, "options": list(error.options)})
        self._pause(native, error, {"of": error.of, "options": list(error.options)})

    def broken(self, native: Native, error: e.StepgrantError) -> NoReturn:
        """Out of the graph."""
        raise bubbling(error) from error.__cause__

    def _message(self, native: Native, text: str, status: str) -> ToolMessage:
        call = native.request.tool_call
        return ToolMessage(content=text, name=call["name"], tool_call_id=call["id"] or "", status=status)

    def _pause(self, native: Native, error: e.StepNotRun, told: dict[str, Any]) -> NoReturn:
        if not is_saved():
            # Nothing is saved that could be resumed: the caller has to hear of it.
            raise bubbling(error) from error.__cause__
        call = self.identify(native)
        run = current_frame(call.spec.name).session.run_id
        named = hashlib.blake2b(f"{run}|{call.name}".encode(), digest_size=16).hexdigest()
        value = {PAUSE: error.code, "tool": call.spec.name, "call": native.call_id, "message": str(error), **told}
        raise GraphInterrupt((Interrupt(value=value, id=named),)) from error


_warned: Final[WeakSet[Session]] = WeakSet()
_WHY: Final = "return a ToolMessage or any JSON from the tool, and go on from there in a node of the graph"


def _told(native: Native, error: Refusal) -> str:
    name = native.request.tool_call["name"]
    match error:
        case e.Denied():
            why = ", ".join(error.reasons) or "no reason given"
            return f"Not allowed: {name} was denied ({why}). Nothing was done. The same call will be denied again."
        case e.StepFailed():
            return f"Error: {name} failed ({error.status}): {error.error or 'no text recorded'}"
        case _:
            return f"{name} was done and must not be done again, but its result {error._why}."  # noqa: SLF001  # ours


def _warn_of_lost_ids() -> None:
    saved = is_saved()
    if saved and get_config().get("configurable", {}).get(_DURABILITY) != "exit":
        return
    session = current_frame("a tool of a graph").session
    if session in _warned:
        return
    _warned.add(session)
    why = 'durability="exit"' if saved else "no checkpointer"
    warnings.warn(
        f"{why}: LangGraph saves nothing before the end, so after a crash the model is asked again and its calls have "
        "new ids; effects in doubt are then found by their arguments, and other repetitions asked about",
        LostIdsWarning,
        stacklevel=2,
    )
