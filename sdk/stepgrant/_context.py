"""Where the running code is: in which run, under which step.

Carried by context variables, so tasks and `asyncio.to_thread` inherit it; a thread pool does not, unless its caller
passes `contextvars.copy_context().run`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stepgrant._errors import ConfigurationError, CredentialMisuse

if TYPE_CHECKING:
    from stepgrant._frames import Frame
    from stepgrant.credential import Credential


@dataclass(frozen=True, slots=True)
class CurrentStep:
    """The step that the running tool serves. A reconcile hook is given the one that is in doubt.

    `idempotency_key` is the same in every attempt; give it to targets that know such keys. `args` are the bound call.
    """

    run_id: str
    key: str
    attempt: int
    epoch: int
    tool: str
    effect: str
    idempotency_key: str
    resource: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Active:
    """What a tool finds around itself."""

    step: CurrentStep
    credential: Credential


_frame: Final[ContextVar[Frame | None]] = ContextVar("stepgrant_frame", default=None)
_active: Final[ContextVar[Active | None]] = ContextVar("stepgrant_active", default=None)


def current_frame(what: str) -> Frame:
    """Where the next step belongs. Raises `ConfigurationError` outside of a run."""
    frame = _frame.get()
    if frame is None:
        raise ConfigurationError(
            f"{what} was called outside of a run: put the call in `with stepgrant.run(...)`; a thread of a pool gets "
            "the run only with contextvars.copy_context().run"
        )
    return frame


def current_step() -> CurrentStep:
    """The step that the running tool serves. Raises `ConfigurationError` outside of a tool."""
    active = _active.get()
    if active is None:
        raise ConfigurationError("no step is running here: current_step() is for the inside of a guarded tool")
    return active.step


def current_credential() -> Credential:
    """The credential of the running tool's step. Raises `CredentialMisuse` outside of a tool."""
    active = _active.get()
    if active is None:
        raise CredentialMisuse("no step is running here, so there is no credential: call a guarded tool")
    return active.credential


def enter_run(frame: Frame) -> Token[Frame | None]:
    """From here on calls belong to this run."""
    return _frame.set(frame)


def leave_run(token: Token[Frame | None]) -> None:
    """Back to what was before `enter_run`."""
    try:
        _frame.reset(token)
    except ValueError:
        # A framework, or a generator that is being closed, may leave in another context than it came in.
        _frame.set(None)


@contextmanager
def inside(frame: Frame, active: Active | None) -> Iterator[None]:
    """The inside of a step: calls are its children. `active` is None in a recorded step, which has no credential."""
    frame_token, active_token = _frame.set(frame), _active.set(active)
    try:
        yield
    finally:
        leave_run(frame_token)
        try:
            _active.reset(active_token)
        except ValueError:
            _active.set(None)
