"""A thread of LangGraph as a run: its key is the thread's id, and it ends when the graph has come to its end.

LangGraph swallows pauses: `graph.invoke` returns as if it were done. So what leaving the block means is read from the
thread itself: nodes left to do, and the run is parked for whoever resumes the thread; none, and it is completed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from stepgrant._adapter import FORK
from stepgrant._calls import ParkReason
from stepgrant._errors import ConfigurationError
from stepgrant._run import AsyncRun, Opening, Run, run
from stepgrant.integrations._langgraph_answers import PAUSE

__all__ = ["Thread", "apark_unfinished", "park_unfinished", "thread"]

_OURS: Final[Mapping[str, ParkReason]] = {
    "approval_required": "awaiting_approval",
    "step_in_doubt": "in_doubt",
    "suspected_duplicate": "in_doubt",
}


class _Pause(Protocol):
    @property
    def value(self) -> Any: ...  # noqa: ANN401  # whatever a node paused with


class _State(Protocol):
    @property
    def next(self) -> tuple[str, ...]: ...

    @property
    def interrupts(self) -> Sequence[_Pause]: ...


class Graph(Protocol):
    """What is asked of a compiled graph."""

    def get_state(self, config: RunnableConfig) -> _State:
        """The thread's newest state."""
        ...

    async def aget_state(self, config: RunnableConfig) -> _State:
        """As `get_state`."""
        ...


class Thread:
    """What `thread(...)` gives: enter it with `with` or `async with`, once."""

    def __init__(self, graph: Graph, thread_id: str, opening: Opening, *, keep_open: bool) -> None:
        self._graph = graph
        self._newest: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        self._opening = opening
        self._keep_open = keep_open
        self._run: Run | None = None
        self._arun: AsyncRun | None = None

    def __enter__(self) -> Run:
        """Open or resume the run."""
        self._run = self._opening.__enter__()
        return self._run

    async def __aenter__(self) -> AsyncRun:
        """Open or resume the run."""
        self._arun = await self._opening.__aenter__()
        return self._arun

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete or park it."""
        held = self._run
        try:
            if error is None and held is not None and not held.over:
                reason = self._unfinished(self._graph.get_state(self._newest))
                if reason is not None:
                    held.park(reason)
                held._session.waiting.clear()  # noqa: SLF001  # the thread has said it
        except BaseException as failed:
            self._opening.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._opening.__exit__(kind, error, trace)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete or park it."""
        held = self._arun
        try:
            if error is None and held is not None and not held.over:
                reason = self._unfinished(await self._graph.aget_state(self._newest))
                if reason is not None:
                    await held.park(reason)
                held._session.waiting.clear()  # noqa: SLF001  # the thread has said it
        except BaseException as failed:
            await self._opening.__aexit__(type(failed), failed, failed.__traceback__)
            raise
        await self._opening.__aexit__(kind, error, trace)

    def _unfinished(self, state: _State) -> ParkReason | None:
        """Why the run goes on later; None: it is over."""
        return _left(state) or ("requested" if self._keep_open else None)


def park_unfinished(graph: Graph, run: Run) -> bool:
    """Park the run if its thread has something left to do; whether it had. The thread's id is the run's key.

    For a function of `@stepgrant.agent`, which has its run already, after the graph was invoked.
    """
    reason = _left(graph.get_state({"configurable": {"thread_id": run.key}}))
    if reason is not None:
        run.park(reason)
    return reason is not None


async def apark_unfinished(graph: Graph, run: AsyncRun) -> bool:
    """As `park_unfinished`."""
    reason = _left(await graph.aget_state({"configurable": {"thread_id": run.key}}))
    if reason is not None:
        await run.park(reason)
    return reason is not None


def _left(state: _State) -> ParkReason | None:
    """What a thread waits for; None: nothing is left to do."""
    if not state.next:
        return None
    reasons = [_reason_of(one.value) for one in state.interrupts]
    if not reasons or "suspended" in reasons:
        return "suspended"
    return "awaiting_approval" if "awaiting_approval" in reasons else reasons[0]


def _reason_of(value: object) -> ParkReason:
    said = value.get(PAUSE) if isinstance(value, dict) else None
    return _OURS.get(str(said), "suspended")


def thread(
    graph: Graph,
    config: RunnableConfig,
    *,
    agent: str,
    fork: str | None = None,
    keep_open: bool = False,
    **options: Any,  # noqa: ANN401  # those of `stepgrant.run`
) -> Thread:
    """The run of a graph's thread, to enter around `graph.invoke(..., config)` and its kin.

        with thread(graph, config, agent="billing"):
            graph.invoke(inputs, config)        # after a crash or a pause: graph.invoke(None, config)

    Args:
        graph: compiled with a checkpointer.
        config: names the thread (`configurable.thread_id`), whose id is the run's key.
        agent: a name that this workload is enrolled for.
        fork: for a time travel whose effects are to be done anew: another run, of this name. Without it a call that
            comes back from an old checkpoint gives what was recorded.
        keep_open: the thread goes on after the graph's end (a conversation): the run is parked then, not completed.
        options: more of `stepgrant.run`.

    Raises `ConfigurationError`, and on entering what `stepgrant.run` raises.
    """
    thread_id = config.get("configurable", {}).get("thread_id")
    if not isinstance(thread_id, str) or not thread_id:
        raise ConfigurationError("thread(graph, config): config names no configurable.thread_id, a text")
    if getattr(graph, "checkpointer", None) in (None, False):
        raise ConfigurationError("thread(graph, config): the graph has no checkpointer, so there is no thread")
    if FORK in thread_id or FORK in (fork or ""):
        raise ConfigurationError(f"a thread's id and fork= have no {FORK!r}, which stands between them")
    key = thread_id if fork is None else f"{thread_id}{FORK}{fork}"
    passing = (*options.pop("passthrough", ()), GraphBubbleUp)
    return Thread(graph, thread_id, run(key, agent=agent, passthrough=passing, **options), keep_open=keep_open)
