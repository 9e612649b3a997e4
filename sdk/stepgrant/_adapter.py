"""The seam between the guard and a framework: what an adapter tells, and what it is told.

    framework's hook ─▶ guard(adapter, native, invoke) ─▶ identify ─▶ the one guard of `_guard`
                        recorded result ─▶ decode       denied, failed before, result withheld ─▶ denied
                        approval ─▶ wait                doubt, suspected duplicate ─▶ doubt         the rest ─▶ broken

Rules (`integrations.md` §5):
* A framework's saved state, and what somebody answers to its pause, carry no authority: each time a call comes, the
  broker is asked.
* The run is Stepgrant's, and its key is the framework's own name of the conversation: under another key the same call
  would be another step, and be done again.
* A loop that shows exceptions to a model makes it ask again, under another id. So what means *come back* leaves the
  framework in the framework's own way (`wait`, `doubt`, `broken`); only what is final may be shown (`denied`).
* A tool of ours that a framework calls is not guarded twice: the adapter's step is the step, if it is the same action.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast

from stepgrant import _errors as e
from stepgrant._context import current_frame
from stepgrant._flows import Flow, Invoke, Raised, Returned, adrive, drive
from stepgrant._frames import Frame
from stepgrant._guard import PAUSES, guarded
from stepgrant._results import encode
from stepgrant._spec import ToolSpec, Work
from stepgrant.credential import Credential

Native_contra = TypeVar("Native_contra", contravariant=True)
Result = TypeVar("Result")
N = TypeVar("N")
R = TypeVar("R")
Refusal = e.Denied | e.StepFailed | e.ResultWithheld
"""Final: the tool will not run, or ran and has no result to give."""
Doubt = e.InDoubt | e.SuspectedDuplicate
FORK: Final = "#"
"""Between a conversation's name and that of a run which does its effects anew."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A framework's call in our words.

    Args:
        spec: the tool's declaration.
        args: the arguments with which the tool will really run, as JSON.
        call_id: the framework's id of the call; None: the order of calls, unless the tool declares an id.
        run_key: the framework's name of the conversation; None: it has none that outlives the process.
        injected: parameters that the framework itself gives the tool, which are no part of the action.
    """

    spec: ToolSpec
    args: Mapping[str, Any] = field(repr=False)
    call_id: str | None
    run_key: str | None
    injected: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What `Session.waiting` knows it by."""
        return self.call_id or self.spec.name


class Adapter(Protocol[Native_contra, Result]):
    """What a framework's adapter knows of its framework. Methods that end a call return its value, or raise."""

    def identify(self, native: Native_contra) -> ToolCall:
        """The call."""
        ...

    def passes(self, error: BaseException) -> bool:
        """Whether the framework leaves a tool with this exception and comes back: suspended, not failed."""
        ...

    def encode(self, native: Native_contra, result: Result) -> Any:  # noqa: ANN401  # any JSON value
        """What is recorded. Raises `NotJson` for what could not be given back as it is."""
        ...

    def decode(self, native: Native_contra, recorded: Any) -> Result:  # noqa: ANN401  # any JSON value
        """What is given back, bound to this call's id. A person's or a hook's result comes without `encode`'s form."""
        ...

    def denied(self, native: Native_contra, error: Refusal) -> Result:
        """Tell the model."""
        ...

    def wait(self, native: Native_contra, error: e.ApprovalRequired) -> Result:
        """Pause until a person answered at the broker."""
        ...

    def doubt(self, native: Native_contra, error: Doubt) -> Result:
        """Pause until somebody settled it at the broker."""
        ...

    def broken(self, native: Native_contra, error: e.StepgrantError) -> Result:
        """Stop: this process cannot go on. The model must not see it."""
        ...


def guard(adapter: Adapter[N, R], native: N, invoke: Callable[[], R]) -> R:
    """Guard one call in this thread. `invoke` runs the tool; what it raises, and is not final, is raised again."""
    heard: list[BaseException] = []
    call: ToolCall | None = None
    try:
        call = adapter.identify(native)
        frame = _frame_of(call)
        run = _inside(call, _listening(invoke, heard))
        value = drive(guarded(frame, _work(adapter, native, call, run)), frame.session.blocking)
    except e.StepgrantError as error:
        return _ended(adapter, native, call, error, heard)
    except BaseException as error:
        _note_left(adapter, call, error)
        raise
    frame.session.waiting.pop(call.name, None)
    return cast("R", value)


async def aguard(adapter: Adapter[N, R], native: N, invoke: Callable[[], Awaitable[R]]) -> R:
    """As `guard`, in this task."""
    heard: list[BaseException] = []
    call: ToolCall | None = None
    try:
        call = adapter.identify(native)
        frame = _frame_of(call)
        run = _ainside(call, invoke, heard)
        value = await adrive(guarded(frame, _work(adapter, native, call, run)), frame.session.asyncio)
    except e.StepgrantError as error:
        return _ended(adapter, native, call, error, heard)
    except BaseException as error:
        _note_left(adapter, call, error)
        raise
    frame.session.waiting.pop(call.name, None)
    return cast("R", value)


def _frame_of(call: ToolCall) -> Frame:
    frame = current_frame(call.spec.name)
    key = frame.session.opened.run_key
    if call.run_key is not None and key != call.run_key and not key.startswith(call.run_key + FORK):
        raise e.ConfigurationError(
            f"this run is {key!r}, but the framework calls its conversation {call.run_key!r}; they must be the same, "
            "or what was done would be done again when the conversation goes on"
        )
    return frame


def _work(adapter: Adapter[N, R], native: N, call: ToolCall, run: Callable[[Credential], Any]) -> Work:
    return Work(
        call.spec,
        call.args,
        run,
        step_id=None if call.spec.step_id is not None else call.call_id,
        given="call_id",
        outgoing=lambda value: adapter.encode(native, value),
        incoming=lambda recorded: adapter.decode(native, recorded),
        passes=adapter.passes,
        settles=True,
    )


def _ended(
    adapter: Adapter[N, R], native: N, call: ToolCall | None, error: e.StepgrantError, heard: list[BaseException]
) -> R:
    _note_left(adapter, call, error)
    match error:
        case e.ApprovalRequired():
            return adapter.wait(native, error)
        case e.InDoubt() | e.SuspectedDuplicate():
            return adapter.doubt(native, error)
        case _ if isinstance(error, PAUSES):
            return adapter.broken(native, error)
        case _ if any(error is one for one in heard):
            raise error
        case e.Denied() | e.StepFailed() | e.ResultWithheld():
            return adapter.denied(native, error)
        case _:
            return adapter.broken(native, error)


def _note_left(adapter: Adapter[N, R], call: ToolCall | None, error: BaseException) -> None:
    """Remember on the run that this call is to come back, for a framework may swallow what it is left with."""
    if call is None:
        return
    try:
        waiting = current_frame(call.spec.name).session.waiting
    except e.ConfigurationError:
        return
    if isinstance(error, e.ApprovalRequired):
        waiting[call.name] = "awaiting_approval"
    elif isinstance(error, (e.InDoubt, e.SuspectedDuplicate)):
        waiting[call.name] = "in_doubt"
    elif isinstance(error, PAUSES) or adapter.passes(error):
        waiting[call.name] = "suspended"
    else:
        waiting.pop(call.name, None)


# --------------------------------------------------------------------------------------- tools of ours under an adapter


@dataclass(slots=True)
class _Outer:
    """The adapter's step around the running code. `args`: canonical bytes."""

    spec: ToolSpec
    args: bytes = field(repr=False)
    injected: frozenset[str]
    credential: Credential
    used: bool = False


_outer: Final[ContextVar[_Outer | None]] = ContextVar("stepgrant_outer", default=None)


@contextmanager
def _around(call: ToolCall, credential: Credential) -> Iterator[None]:
    args = encode(call.args, f"the arguments of {call.spec.name}")
    token = _outer.set(_Outer(call.spec, args, call.injected, credential))
    try:
        yield
    finally:
        _outer.reset(token)


def _listening(invoke: Callable[[], R], heard: list[BaseException]) -> Callable[[], R]:
    def listened() -> R:
        try:
            return invoke()
        except BaseException as error:
            heard.append(error)
            raise

    return listened


def _inside(call: ToolCall, invoke: Callable[[], R]) -> Callable[[Credential], R]:
    def run(credential: Credential) -> R:
        with _around(call, credential):
            return invoke()

    return run


def _ainside(
    call: ToolCall, invoke: Callable[[], Awaitable[R]], heard: list[BaseException]
) -> Callable[[Credential], Awaitable[R]]:
    async def run(credential: Credential) -> R:
        with _around(call, credential):
            try:
                return await invoke()
            except BaseException as error:
                heard.append(error)
                raise

    return run


def taken_over(work: Work) -> Flow[Any] | None:
    """Where `work` is the call that an adapter guards around here: run the function in that step. Else None."""
    outer = _outer.get()
    if outer is None or outer.used or outer.spec is not work.spec:
        return None
    outer.used = True
    return _in_outer(outer, work)


def _in_outer(outer: _Outer, work: Work) -> Flow[Any]:
    args = {name: value for name, value in work.args.items() if name not in outer.injected}
    if encode(args, f"the arguments of {work.spec.name}") != outer.args:
        raise e.NotExecuted(
            f"{work.spec.name} was called with other arguments than were decided on; whatever changes arguments has to "
            "stand outside of Stepgrant (earlier in the list of middleware)"
        )
    came: Returned | Raised = yield Invoke(lambda: work.run(outer.credential))
    return came if isinstance(came, Raised) else came.value
