"""Opening, parking and ending a run, as flows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from stepgrant import _calls, _failpoints, _outcomes
from stepgrant import _errors as e
from stepgrant._caller import Caller
from stepgrant._calls import EndVerb, ParkReason
from stepgrant._client import Address, AsyncClient, BlockingClient
from stepgrant._dpop import DpopKey
from stepgrant._ended import learned
from stepgrant._exchange import WorkloadKey
from stepgrant._flows import Flow, Sleep
from stepgrant._identity import TokenFile
from stepgrant._results import encode
from stepgrant._secrets import LIVE
from stepgrant._session import Session
from stepgrant._timeouts import Patience, Timeouts

_log = logging.getLogger("stepgrant")
_PARK_S: Final = 5.0
_DETAIL_CHARS: Final = 500


class Unset(Enum):
    """No value was given, which is not the same as None."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Order:
    """What the caller of `run(...)` wants. `input`: canonical bytes. `identity`: a key file's path, or a token file.

    `resume`: a run that is not there is an error, and not opened. `learn`: of a run that is over, read how it ended.
    """

    agent: str
    run_key: str | None
    version: str | None
    input: bytes | None = field(repr=False)
    labels: Mapping[str, str]
    principal: str | None
    takeover: bool
    url: str
    identity: str | TokenFile
    timeouts: Timeouts
    on_wait: Callable[[e.LeaseHeld], None] | None
    passthrough: tuple[type[BaseException], ...]
    resume: bool = False
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Means:
    """What one open needs: a fresh holder's key behind `caller`, and connections."""

    caller: Caller
    blocking: BlockingClient
    asyncio: AsyncClient


def prepare(order: Order) -> Means:
    """Raises `ConfigurationError`."""
    address = Address.of(order.url)
    known = order.identity
    workload = known if isinstance(known, TokenFile) else WorkloadKey.load(known)
    caller = Caller(address, workload, DpopKey(), order.timeouts)
    return Means(caller, BlockingClient(address), AsyncClient(address))


def opening(order: Order, means: Means, clock: Callable[[], float] = time.monotonic) -> Flow[Session]:
    """Open or resume; wait for another holder's lease to lapse, by this clock. Raises as `run` says."""
    patience = Patience(order.timeouts.lease, clock)
    while True:
        call = _calls.open_run(
            agent=order.agent,
            run_key=order.run_key,
            version=order.version,
            run_input=order.input,
            labels=order.labels,
            principal=order.principal,
            takeover=order.takeover,
            resume=order.resume,
        )
        if _failpoints.on is not None:
            _failpoints.hit("sdk.before_open")
        try:
            opened = yield from means.caller.call(call, _outcomes.Opened, fresh=True)
        except e.LeaseHeld as held:
            pause = patience.pause(held.retry_after)
            if pause is None:
                raise
            _log.warning("run %s is held by another process; waiting %.1f s for its lease", order.run_key, pause)
            if order.on_wait is not None:
                order.on_wait(held)
            yield Sleep(pause)
            continue
        except e.RunEnded as over:
            raise (yield from learned(order, means, over)) from None
        if _failpoints.on is not None:
            _failpoints.hit("sdk.after_open")
            if opened.epoch > 1:
                _failpoints.hit("sdk.on_resume")
        return Session(
            opened, means.caller, blocking=means.blocking, asyncio=means.asyncio, passthrough=order.passthrough
        )


def queueing(order: Order, means: Means) -> Flow[_outcomes.Queued]:
    """Store a run for whoever comes to run it; one that is there stays as it is. Raises as `opening`."""
    call = _calls.queue_run(
        agent=order.agent,
        run_key=order.run_key,
        version=order.version,
        run_input=order.input,
        labels=order.labels,
        principal=order.principal,
    )
    try:
        queued: _outcomes.Queued = yield from means.caller.call(call, _outcomes.Queued, fresh=True)
    except e.RunEnded as over:
        raise (yield from learned(order, means, over)) from None
    return queued


def ending(session: Session, verb: EndVerb, result: Any) -> Flow[None]:  # noqa: ANN401  # any JSON value
    """End the run; nothing more can be done in it. Raises `NotJson`, `SecretInResult`, `InDoubt`, `StaleEpoch`."""
    data = None if result is UNSET else encode(result, "the run's result")
    if data is not None and LIVE.found_in(data):
        raise e.SecretInResult(step="~end")
    call = _calls.end(session.run_id, session.epoch, verb, data)
    yield from session.call(call, _outcomes.Held)
    session.lose(e.RunEnded("this run was ended here; that is final"))
    session.given_up, session.came_to = True, verb


def parking(
    session: Session, reason: ParkReason, *, detail: str | None = None, patience: Patience | None = None
) -> Flow[None]:
    """Give the run back. `detail` is cut, and live secrets in it are masked."""
    said = None if not detail else LIVE.redacted(detail).encode("utf-8", "replace").decode()[:_DETAIL_CHARS]
    call = _calls.park(session.run_id, session.epoch, reason, said)
    yield from session.call(call, _outcomes.Held, patience=patience)
    session.lose(e.StaleEpoch("this run was parked here; enter stepgrant.run(...) again to resume it"))
    session.given_up, session.came_to = True, "park"


def leaving(session: Session, result: Any, error: BaseException | None) -> Flow[None]:  # noqa: ANN401  # any JSON value
    """What the end of the block means: complete, park, or nothing where the run is given up or lost already."""
    if session.given_up:
        return
    if error is None and session.waiting and session.lost is None:
        # The framework ended its turn without an exception, but calls of it wait: ending the run would give them up.
        yield from parking(session, next(iter(session.waiting.values())))
    elif error is None:
        try:
            yield from ending(session, "complete", result)
        except Exception as unfinished:
            yield from _park_quietly(session, unfinished)
            raise
    elif session.lost is None:
        yield from _park_quietly(session, error)


def _park_quietly(session: Session, error: BaseException) -> Flow[None]:
    """The exception that ends the block is the news; that its run could not be parked only costs a lease's length."""
    if session.lost is not None:
        return
    reason = park_reason(error, session.passthrough)
    detail = f"{type(error).__name__}: {error}" if reason == "error" else None
    try:
        yield from parking(session, reason, detail=detail, patience=Patience(_PARK_S))
    except e.StepgrantError as unheard:
        _log.warning("run %s could not be parked (%s); its lease will lapse", session.run_id, unheard.code)


def park_reason(error: BaseException, passthrough: tuple[type[BaseException], ...]) -> ParkReason:
    """Why a run is parked when this leaves its block."""
    leaves = list(_leaves(error))
    if any(isinstance(one, e.ApprovalRequired) for one in leaves):
        return "awaiting_approval"
    if any(isinstance(one, (e.InDoubt, e.SuspectedDuplicate)) for one in leaves):
        return "in_doubt"
    if any(isinstance(one, passthrough) for one in leaves):
        return "suspended"
    return "error" if any(isinstance(one, Exception) for one in leaves) else "requested"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
