"""`@stepgrant.agent`: a function that is a whole run, and can be started, run here, resumed, or left to a worker.

    @stepgrant.agent("billing", version="3")
    def bill(order: dict) -> dict:
        return charge_card(order["invoice"], order["amount"])

    bill.start({"invoice": "inv_9", "amount": 4200}, run_key="order-1729")   # any worker runs it: stepgrant work
    bill.run({"invoice": "inv_9", "amount": 4200}, run_key="order-1729")     # this process runs it, now

Rules:
* The function always gets the stored input, as JSON gives it back, so that a resumed run sees what the first one saw.
* What it returns completes the run; what it raises parks the run, and a worker tries it again. To give up for good, it
  takes the run as a second parameter and calls `run.fail()`.
* Options are looked up when a run begins, so that importing the module of an agent needs neither broker nor key.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Final, Generic, Protocol, TypeAlias, TypeVar, cast, overload

from stepgrant import _errors as e
from stepgrant._declaring import require_agent_name, require_function
from stepgrant._flows import adrive, drive
from stepgrant._identity import TokenFile
from stepgrant._run import AsyncRun, Opening, Run, run
from stepgrant._run_flows import UNSET, Order, Unset, prepare, queueing
from stepgrant._session import Session
from stepgrant._timeouts import Timeouts

In = TypeVar("In")
R = TypeVar("R")
_MOST: Final = 2
OnHeld: TypeAlias = Callable[[Session], None]


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run that was started: the broker's name of it, and the caller's."""

    run: str
    run_key: str


@dataclass(frozen=True, slots=True)
class _Options:
    """As the parameters of `stepgrant.run`."""

    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    principal: str | None = None
    url: str | None = None
    workload_key: str | os.PathLike[str] | None = None
    identity_file: str | os.PathLike[str] | TokenFile | None = None
    timeouts: Timeouts | None = None
    on_wait: Callable[[e.LeaseHeld], None] | None = None
    passthrough: tuple[type[BaseException], ...] = ()


class Handle(ABC, Generic[In, R]):
    """What both colours of an agent share. Calling it calls the function itself, in whatever run the caller is in."""

    def __init__(self, name: str, function: Callable[..., Any], options: _Options) -> None:
        self.name: Final = name
        """The agent's name, for which the workload is enrolled."""
        self.function: Final = function
        self._options: Final = options
        self._takes: Final = _parameters(function)
        functools.update_wrapper(cast("Callable[..., Any]", self), function)

    def __repr__(self) -> str:
        return f"<agent {self.name}: {_name_of(self.function)}>"

    def opening(
        self,
        run_key: str | None = None,
        run_input: Any = UNSET,  # noqa: ANN401  # any JSON value
        *,
        resume: bool = False,
        timeouts: Timeouts | None = None,
    ) -> Opening:
        """A run of this agent, to enter. `resume`: only one that is there."""
        known = self._options
        made = run(
            run_key,
            agent=self.name,
            input=run_input,
            version=known.version,
            labels=known.labels,
            principal=known.principal,
            url=known.url,
            workload_key=known.workload_key,
            identity_file=known.identity_file,
            timeouts=timeouts or known.timeouts,
            on_wait=known.on_wait,
            passthrough=known.passthrough,
        )
        made.order = replace(made.order, resume=resume)
        return made

    def order(self) -> Order:
        """How this agent reaches its broker. Raises `ConfigurationError`."""
        return self.opening().order

    @abstractmethod
    def perform(self, opening: Opening, on_held: OnHeld) -> None:
        """Run the function in this thread, in a run that `opening` opens. `on_held` is told once it is held.

        Raises what the function raises, and what opening raises.
        """

    def _given(self, held: Run | AsyncRun) -> tuple[Any, ...]:
        return (held.input, held)[: self._takes]


class Agent(Handle[In, R]):
    """A `def` as an agent, of this input and result."""

    def __call__(self, *args: Any, **kwargs: Any) -> R:  # noqa: ANN401  # those of the function
        return cast("R", self.function(*args, **kwargs))

    def start(self, input: In | Unset = UNSET, *, run_key: str | None = None) -> RunRef:  # noqa: A002  # as `run`
        """Store a run for a worker. One with this key that has not ended is left as it is.

        Raises `Denied`, `RunEnded` (the key is used up), `Quarantined`, `NotJson`, `BrokerUnavailable`, and
        `BrokerError` `duplicate_request` for another input under the same key.
        """
        order = self.opening(run_key, input).order
        means = prepare(order)
        try:
            queued = drive(queueing(order, means), means.blocking)
        finally:
            means.blocking.close()
        return RunRef(queued.run, queued.run_key)

    def run(self, input: In | Unset = UNSET, *, run_key: str | None = None) -> R:  # noqa: A002  # as `stepgrant.run`
        """Run it here: opened, or resumed if `run_key` names an unfinished one.

        Of one that was completed with this input the recorded result is given back, and nothing is done again.
        Raises as `stepgrant.run` does; `RunEnded` where it failed, was cancelled, or no record of its result is left.
        """
        return self._here(self.opening(run_key, input))

    def resume(self, run_key: str) -> R:
        """Go on with a run that is there, with its stored input. Raises `BrokerError` `unknown_run`."""
        return self._here(self.opening(run_key, resume=True))

    def _here(self, opening: Opening) -> R:
        try:
            return self._perform(opening, _nothing)
        except e.RunEnded as over:
            if not _gives_back(over, opening):
                raise
            return cast("R", over.result)

    def perform(self, opening: Opening, on_held: OnHeld) -> None:
        """As `Handle.perform`."""
        self._perform(opening, on_held)

    def _perform(self, opening: Opening, on_held: OnHeld) -> R:
        with opening as held:
            on_held(session_of(held))
            value = cast("R", self.function(*self._given(held)))
            held.result = UNSET if value is None else value
        return value


class AsyncAgent(Handle[In, R]):
    """An `async def` as an agent: the same methods, awaited."""

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[R]:  # noqa: ANN401  # those of the function
        return cast("Awaitable[R]", self.function(*args, **kwargs))

    async def start(self, input: In | Unset = UNSET, *, run_key: str | None = None) -> RunRef:  # noqa: A002  # as `run`
        """As `Agent.start`."""
        order = self.opening(run_key, input).order
        means = prepare(order)
        means.asyncio.home = asyncio.get_running_loop()
        try:
            queued = await adrive(queueing(order, means), means.asyncio)
        finally:
            means.asyncio.close()
            means.blocking.close()
        return RunRef(queued.run, queued.run_key)

    async def run(self, input: In | Unset = UNSET, *, run_key: str | None = None) -> R:  # noqa: A002  # as `Agent.run`
        """As `Agent.run`."""
        return await self._here(self.opening(run_key, input))

    async def resume(self, run_key: str) -> R:
        """As `Agent.resume`."""
        return await self._here(self.opening(run_key, resume=True))

    async def _here(self, opening: Opening) -> R:
        try:
            return await self._perform(opening, _nothing)
        except e.RunEnded as over:
            if not _gives_back(over, opening):
                raise
            return cast("R", over.result)

    def perform(self, opening: Opening, on_held: OnHeld) -> None:
        """As `Handle.perform`, in an event loop of its own."""
        asyncio.run(self._perform(opening, on_held))

    async def _perform(self, opening: Opening, on_held: OnHeld) -> R:
        async with opening as held:
            on_held(session_of(held))
            value = cast("R", await self.function(*self._given(held)))
            held.result = UNSET if value is None else value
        return value


class Decorator(Protocol):
    """What `agent(...)` gives."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is the first, also as one that gives any R
        self, function: Callable[Concatenate[In, ...], Coroutine[Any, Any, R]], /
    ) -> AsyncAgent[In, R]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]  # as above
        self, function: Callable[[], Coroutine[Any, Any, R]], /
    ) -> AsyncAgent[Any, R]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[In, ...], R], /) -> Agent[In, R]: ...

    @overload
    def __call__(self, function: Callable[[], R], /) -> Agent[Any, R]: ...


def agent(
    name: str,
    *,
    version: str | None = None,
    labels: Mapping[str, str] | None = None,
    principal: str | None = None,
    url: str | None = None,
    workload_key: str | os.PathLike[str] | None = None,
    identity_file: str | os.PathLike[str] | TokenFile | None = None,
    timeouts: Timeouts | None = None,
    on_wait: Callable[[e.LeaseHeld], None] | None = None,
    passthrough: tuple[type[BaseException], ...] = (),
) -> Decorator:
    """Make a function a resumable agent. It takes the input, and the run as well if it has a second parameter.

    The options are those of `stepgrant.run`. Raises `ConfigurationError` for a function that takes something else.
    """
    require_agent_name(name)
    options = _Options(
        version, dict(labels or {}), principal, url, workload_key, identity_file, timeouts, on_wait, passthrough
    )

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401  # by the function's colour
        if isinstance(function, Handle):
            raise e.ConfigurationError(f"{function!r} is an agent already")
        require_function(function, "agent")
        kind: type[Handle[Any, Any]] = AsyncAgent if inspect.iscoroutinefunction(function) else Agent
        return kind(name, function, options)

    return cast("Decorator", decorate)


def _name_of(function: Callable[..., Any]) -> str:
    """Never its `repr`, which may show what is bound in it."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def _parameters(function: Callable[..., Any]) -> int:
    """How many of (input, run) the function takes."""
    known = list(inspect.signature(function).parameters.values())
    positional = [one for one in known if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
    left = [one for one in known if one not in positional and one.default is one.empty and one.kind is one.KEYWORD_ONLY]
    needed = [one for one in positional if one.default is one.empty]
    if left or len(needed) > _MOST:
        raise e.ConfigurationError(f"{_name_of(function)} is an agent: it takes the input, and the run if it wants it")
    return min(len(positional), _MOST)


def session_of(held: Run | AsyncRun) -> Session:
    """What a worker needs of a held run."""
    return held._session  # noqa: SLF001  # the SDK's own, as in `_run`


def _gives_back(over: e.RunEnded, opening: Opening) -> bool:
    """Whether this very run was completed before it could be entered here, and its record says with what."""
    return not opening.opened and over.state == "completed" and over.recorded


def _nothing(_: Session) -> None:
    """Nobody wants to know that the run is held."""
