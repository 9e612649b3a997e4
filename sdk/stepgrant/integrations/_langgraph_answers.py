"""What somebody says when he resumes a graph that we paused goes nowhere.

`Command(resume=value)` without an interrupt's id answers "whatever asks next". After a pause of ours nothing of ours
asks again, so the value would be what a tool's own `interrupt()` returns: a person's "ok, approved" taken for the
answer to another question. So where the thread's pending pause is ours, such a value is dropped before any tool runs,
and also where LangGraph saved it, for it would come back with the next resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.config import get_config
from langgraph.prebuilt.tool_node import ToolCallRequest

__all__ = ["PAUSE", "adrop_stray_answer", "drop_stray_answer", "is_saved"]

PAUSE: Final = "stepgrant"
"""The member of an interrupt's value that says it is ours, and why."""
_SCRATCHPAD: Final = "__pregel_scratchpad"
_CHECKPOINTER: Final = "__pregel_checkpointer"
_INTERRUPT: Final = "__interrupt__"
_RESUME: Final = "__resume__"
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""Under which LangGraph saves a value that is for no task in particular."""


@dataclass(frozen=True, slots=True)
class _Place:
    saver: BaseCheckpointSaver[Any]
    checkpoint: RunnableConfig
    task_id: str
    scratchpad: Any

    def ours(self, saved: CheckpointTuple | None) -> bool:
        """Whether the task's newest pause is one of ours."""
        pauses = [
            value
            for task_id, channel, value in (saved.pending_writes if saved is not None else None) or ()
            if task_id == self.task_id and channel == _INTERRUPT
        ]
        return bool(pauses) and any(isinstance(one.value, dict) and PAUSE in one.value for one in pauses[-1])

    def take(self) -> None:
        """Out of this process's copy."""
        self.scratchpad.get_null_resume(True)  # noqa: FBT003  # LangGraph's own signature


def is_saved() -> bool:
    """Whether the running graph has a checkpointer, its own or its parent's: what is paused can be resumed."""
    return isinstance(get_config().get("configurable", {}).get(_CHECKPOINTER), BaseCheckpointSaver)


def drop_stray_answer(request: ToolCallRequest) -> None:
    """Before a call: drop what was said to a pause of ours."""
    place = _find(request)
    if place is not None and place.ours(place.saver.get_tuple(place.checkpoint)):
        place.take()
        place.saver.put_writes(place.checkpoint, [(_RESUME, None)], _NOBODY)


async def adrop_stray_answer(request: ToolCallRequest) -> None:
    """As `drop_stray_answer`."""
    place = _find(request)
    if place is not None and place.ours(await place.saver.aget_tuple(place.checkpoint)):
        place.take()
        await place.saver.aput_writes(place.checkpoint, [(_RESUME, None)], _NOBODY)


def _find(request: ToolCallRequest) -> _Place | None:
    """Where the value is; None for most calls, which nobody resumed with one."""
    configurable = get_config().get("configurable", {})
    scratchpad, saver = configurable.get(_SCRATCHPAD), configurable.get(_CHECKPOINTER)
    info = request.runtime.execution_info
    if info is None or scratchpad is None or not isinstance(saver, BaseCheckpointSaver):
        return None
    if scratchpad.get_null_resume() is None:
        return None
    namespace = info.checkpoint_ns.rpartition("|")[0]
    checkpoint: RunnableConfig = {
        "configurable": {
            "thread_id": info.thread_id,
            "checkpoint_ns": namespace,
            "checkpoint_id": info.checkpoint_id,
        }
    }
    return _Place(saver, checkpoint, info.task_id, scratchpad)
