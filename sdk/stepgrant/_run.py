"""A run, as the agent's code holds it: `with stepgrant.run(...)` and `async with stepgrant.run(...)`.

Rules:
* Entering opens the run, or resumes it if its key is known and it is unfinished. A lease that still runs is waited for,
  and that is said (logger `stepgrant`, and `on_wait`).
* Leaving without an exception completes the run. An exception parks it, so that a later process can resume it; only
  `fail()` fails it. A process that was fenced says nothing, and a clean end of it raises what it was told.
* The heartbeat runs from entering to leaving.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from stepgrant import _errors as e
from stepgrant._calls import EndVerb, ParkReason
from stepgrant._context import enter_run, leave_run
from stepgrant._flows import adrive, drive
from stepgrant._frames import Frame
from stepgrant._heartbeat import Heartbeat
from stepgrant._identity import TokenFile, find_identity
from stepgrant._results import encode
from stepgrant._run_flows import UNSET, Order, ending, leaving, opening, parking, prepare
from stepgrant._session import Session
from stepgrant._timeouts import Timeouts

DEFAULT_URL: Final = "http://127.0.0.1:8423"


class _Held:
    """What both faces of a held run show."""

    def __init__(self, session: Session, heartbeat: Heartbeat) -> None:
        self.result: Any = UNSET
        """What the run completes with: JSON, set before the block is left."""
        self._session = session
        self._heartbeat = heartbeat

    @property
    def id(self) -> str:
        """The broker's name of the run (`run_…`)."""
        return self._session.run_id

    @property
    def key(self) -> str:
        """The caller's name of the run."""
        return self._session.opened.run_key

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._session.opened.agent

    @property
    def epoch(self) -> int:
        """The fencing number under which this process acts."""
        return self._session.epoch

    @property
    def resumed(self) -> bool:
        """Whether the run was there already."""
        return self._session.opened.resumed

    @property
    def input(self) -> Any:  # noqa: ANN401  # any JSON value
        """The input that the run was opened with, also when this process resumed it without one; else None."""
        return self._session.opened.input

    @property
    def history(self) -> Mapping[str, Any]:
        """What the run had done when it was opened here: counts of steps, outcomes and tools, `parked_ms`."""
        return self._session.opened.history

    @property
    def steps_in_doubt(self) -> tuple[str, ...]:
        """Keys of the steps that were in doubt when the run was opened here."""
        return tuple(doubt.step for doubt in self._session.opened.in_doubt)

    @property
    def fenced(self) -> bool:
        """Whether this process has learned that it holds the run no more. Every further call raises why."""
        return self._session.lost is not None and not self._session.given_up

    @property
    def over(self) -> bool:
        """Whether this process is through with the run: it was ended or parked here, or is held by another one."""
        return self._session.given_up or self._session.lost is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, key={self.key!r}, epoch={self.epoch})"


class Run(_Held):
    """A held run, blocking face."""

    def complete(self, result: Any = UNSET) -> None:  # noqa: ANN401  # any JSON value
        """End the run now. Raises `InDoubt` while a step is in doubt, `NotJson`, `StaleEpoch`, `BrokerUnavailable`."""
        self._end("complete", result)

    def fail(self, result: Any = UNSET) -> None:  # noqa: ANN401  # any JSON value
        """End the run as failed: nobody can resume it."""
        self._end("fail", result)

    def cancel(self) -> None:
        """End the run as cancelled."""
        self._end("cancel", UNSET)

    def park(self, reason: ParkReason = "requested", *, detail: str | None = None) -> None:
        """Give the run back: whoever comes next resumes it. `detail`: why, in a few words, for people.

        After `set_aside` nobody resumes it until a person releases it.
        """
        self._heartbeat.quiet = True
        drive(parking(self._session, reason, detail=detail), self._session.blocking)

    def _end(self, verb: EndVerb, result: Any) -> None:  # noqa: ANN401  # any JSON value
        self._heartbeat.quiet = True
        drive(ending(self._session, verb, result), self._session.blocking)


class AsyncRun(_Held):
    """A held run, asyncio face: the same methods, awaited."""

    async def complete(self, result: Any = UNSET) -> None:  # noqa: ANN401  # any JSON value
        """As `Run.complete`."""
        await self._end("complete", result)

    async def fail(self, result: Any = UNSET) -> None:  # noqa: ANN401  # any JSON value
        """As `Run.fail`."""
        await self._end("fail", result)

    async def cancel(self) -> None:
        """As `Run.cancel`."""
        await self._end("cancel", UNSET)

    async def park(self, reason: ParkReason = "requested", *, detail: str | None = None) -> None:
        """As `Run.park`."""
        self._heartbeat.quiet = True
        await adrive(parking(self._session, reason, detail=detail), self._session.asyncio)

    async def _end(self, verb: EndVerb, result: Any) -> None:  # noqa: ANN401  # any JSON value
        self._heartbeat.quiet = True
        await adrive(ending(self._session, verb, result), self._session.asyncio)


@dataclass(slots=True)
class _Entered:
    held: _Held
    token: Token[Frame | None]


@dataclass(slots=True)
class Opening:
    """What `run(...)` gives: enter it with `with` or `async with`, once."""

    order: Order
    _entered: _Entered | None = field(default=None, repr=False)
    _used: bool = field(default=False, repr=False)
    opened: bool = field(default=False, repr=False)
    """Whether the run was held: what `RunEnded` says later is about its end, not about its beginning."""

    def __enter__(self) -> Run:
        """Open or resume."""
        self._use()
        means = prepare(self.order)
        try:
            session = drive(opening(self.order, means), means.blocking)
        except BaseException:
            means.blocking.close()
            raise
        held = Run(session, Heartbeat(session))
        self._enter(held)
        return held

    async def __aenter__(self) -> AsyncRun:
        """Open or resume."""
        import asyncio  # noqa: PLC0415 - as in `_flows`

        self._use()
        means = prepare(self.order)
        means.asyncio.home = asyncio.get_running_loop()
        try:
            session = await adrive(opening(self.order, means), means.asyncio)
        except BaseException:
            means.asyncio.close()
            raise
        held = AsyncRun(session, Heartbeat(session))
        self._enter(held)
        return held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete or park."""
        held = self._leave()
        session = held._session  # noqa: SLF001  # same module
        try:
            drive(leaving(session, held.result, error), session.blocking)
        finally:
            held._heartbeat.stop()  # noqa: SLF001  # same module
            session.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete or park."""
        held = self._leave()
        session = held._session  # noqa: SLF001  # same module
        try:
            await adrive(leaving(session, held.result, error), session.asyncio)
        finally:
            held._heartbeat.ask_to_stop()  # noqa: SLF001  # same module
            session.asyncio.close()
            session.close()

    def _use(self) -> None:
        if self._used:
            raise e.ConfigurationError("this run was entered already; call stepgrant.run(...) again to resume it")
        self._used = True

    def _enter(self, held: _Held) -> None:
        held._heartbeat.start()  # noqa: SLF001  # same module
        self._entered = _Entered(held, enter_run(held._session.top))  # noqa: SLF001  # same module
        self.opened = True

    def _leave(self) -> _Held:
        if self._entered is None:
            raise e.ConfigurationError("this run was not entered")
        entered, self._entered = self._entered, None
        leave_run(entered.token)
        entered.held._heartbeat.quiet = True  # noqa: SLF001  # same module
        return entered.held


def run(
    key: str | None = None,
    *,
    agent: str,
    input: Any = UNSET,  # noqa: A002, ANN401  # the design's name; any JSON value
    version: str | None = None,
    labels: Mapping[str, str] | None = None,
    principal: str | None = None,
    url: str | None = None,
    workload_key: str | os.PathLike[str] | None = None,
    identity_file: str | os.PathLike[str] | TokenFile | None = None,
    takeover: bool = False,
    timeouts: Timeouts | None = None,
    on_wait: Callable[[e.LeaseHeld], None] | None = None,
    passthrough: tuple[type[BaseException], ...] = (),
) -> Opening:
    """A run to enter with `with` or `async with`: opened, or resumed if `key` names an unfinished one of this agent.

    Args:
        key: the caller's name of the run, the same after a crash; without one it cannot be resumed by key.
        agent: a name that this workload is enrolled for.
        input: JSON, stored with the run for whoever resumes it. Another one under the same key is refused.
        version: the agent's version.
        labels: what the agent says of the run, for policy (`claimed.labels`).
        principal: for whom it runs, as the agent says (`claimed.principal`).
        url: the broker; default `STEPGRANT_URL`, else `http://127.0.0.1:8423`.
        workload_key: the key file; default `STEPGRANT_WORKLOAD_KEY`.
        identity_file: instead of a key, a token that the platform writes; default `STEPGRANT_IDENTITY_FILE`, read anew
            for each exchange (`STEPGRANT_IDENTITY_TYPE`: `jwt`, or `id_token` for an OpenID Connect ID token).
        takeover: ask to take the run from a holder whose lease still runs; policy decides.
        timeouts: how long to wait for what.
        on_wait: called before each wait for another holder's lease.
        passthrough: exceptions with which a framework leaves a tool and comes back: suspended, not failed.

    Raises, on entering: `ConfigurationError`, `AuthenticationFailed`, `Denied`, `ApprovalRequired` (policy decides then
    too), `LeaseHeld`, `RunEnded` (with the recorded `result`), `Quarantined`, `NotJson`, `BrokerUnavailable`,
    `BrokerError`.
    """
    order = Order(
        agent=agent, run_key=key, version=version, labels=dict(labels or {}), principal=principal,
        input=None if input is UNSET else encode(input, "the run's input"),
        takeover=takeover, url=url or os.environ.get("STEPGRANT_URL") or DEFAULT_URL,
        identity=find_identity(workload_key, identity_file, os.environ),
        timeouts=timeouts or Timeouts(), on_wait=on_wait, passthrough=passthrough,
    )  # fmt: skip
    return Opening(order)
