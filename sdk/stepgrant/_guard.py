"""The guard: the one state machine around every tool call, for both faces and for every way to declare a tool.

    place of the call ─▶ begin ─▶ replay: the recorded outcome, the tool does not run
                                 denied │ approval_required │ suspected_duplicate: raised, the tool does not run
                                 in_doubt: the reconcile hook looks, then begin again; without a hook raised
                                           blocked (another step's doubt): raised, that step's hook is not ours to run
                                 run ─▶ the tool, with the credential in its context ─▶ complete │ fail │ suspend

Rules:
* The tool runs only between a begin that said `run` and the end of its credential.
* An exception says nothing about the effect. `NotExecuted` and declared types: `not_executed`. Of a `read`: `failed`,
  which is its outcome. All else: `unknown`; for `once` that is doubt, for `idempotent` a new attempt with the same key.
* Control flow (KeyboardInterrupt, a cancelled task, a nested step that has to wait, a framework's own way to leave a
  tool and come back) is a suspension, never a failure.
* The broker may answer with another step than was asked for: the one that this call was before its id was lost. What
  follows (outcome, hook, nested steps) is that step's.
* A result that is not JSON, or contains a live secret, is withheld: the effect happened, so the step is completed.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

from stepgrant import _calls, _failpoints, _outcomes
from stepgrant import _errors as e
from stepgrant._border import hold
from stepgrant._calls import Action, Call, FailOutcome
from stepgrant._context import Active, CurrentStep, inside
from stepgrant._flows import Flow, Invoke, Raised, Returned, Sleep
from stepgrant._frames import Frame, Place
from stepgrant._reconcile import settle_doubt
from stepgrant._refused import named, refusal, too_large
from stepgrant._results import as_recorded, encode
from stepgrant._secrets import LIVE
from stepgrant._session import Session
from stepgrant._spec import Work
from stepgrant._timeouts import Patience
from stepgrant.credential import end, receive

if TYPE_CHECKING:
    from stepgrant._own_key import OwnKey

_log = logging.getLogger("stepgrant")
_LAST_MOMENT_S: Final = 2.0
_MAX_ERROR_CHARS: Final = 500
_DOUBTS_PER_CALL: Final = 2
PAUSES: Final = (
    e.ApprovalRequired,
    e.InDoubt,
    e.SuspectedDuplicate,
    e.PriorCredentialLive,
    e.RunNotHeld,
    e.BrokerUnavailable,
    e.KeyLost,
)
"""A nested step that raised one of these is not over, so neither is the step around it."""


def guarded(frame: Frame, work: Work) -> Flow[Any]:
    """The flow of one call: its value, or `Raised`.

    Raises (and the tool did not run): `Denied`, `ApprovalRequired`, `InDoubt`, `StepDrift`, `StepFailed`, `StaleEpoch`,
    `BrokerUnavailable`, `NotJson`, `OrdinalUnderConcurrency` and the rest of `stepgrant.errors`.
    """
    if frame.session.stopping:
        yield from hold(frame)
    try:
        with frame.call(work.spec.name, work.named_id(), work.source) as place:
            flow = _attempts(frame, place, work)
            result = yield from named(flow, frame.session, place.key, work.spec.name, work.resource)
    except Exception as error:
        frame.note_raised(error)
        raise
    if isinstance(result, Raised):
        frame.note_raised(result.error)
    return result


def _attempts(frame: Frame, place: Place, work: Work) -> Flow[Any]:
    session, action = frame.session, work.action()

    def begin() -> tuple[Call, OwnKey | None]:
        # A key of its own for each attempt: nothing that an older attempt left behind can use the newer certificate.
        own = work.own_key()
        csr = own.request.pem if own is not None else None
        return _calls.begin(session.run_id, place.key, session.epoch, action, place.source, csr=csr), own

    prior = Patience(session.timeouts.prior_credential)
    (call, own), doubts, again = begin(), 0, False
    while True:
        patience = Patience(session.timeouts.broker)
        try:
            outcome = yield from _begin(session, call, patience, again=again)
        except e.PriorCredentialLive as error:
            pause = prior.pause(error.retry_after)
            if pause is None:
                raise
            _log.info("step %s waits %.1f s for an older credential to die", place.key, pause)
            yield Sleep(pause)
            again = True  # it may be the one whose reply was lost here: the call goes on being the same one
            continue
        match outcome:
            case _outcomes.Run():
                result = yield from _run(session, place, work, action, outcome, asked_at=patience.sent_at, own=own)
                if not _hook_can_tell(work, outcome, result):
                    return result
                (call, own), again = begin(), False
            case _outcomes.Replay():
                return _replayed(place, work, outcome)
            case _outcomes.InDoubt(blocked=False) if doubts < _DOUBTS_PER_CALL and work.spec.reconcile is not None:
                stopped = yield from settle_doubt(session, outcome.step, work, action, outcome, guarded)
                if stopped is not None:
                    return stopped
                (call, own), doubts, again = begin(), doubts + 1, False
            case _:
                raise refusal(place, outcome, work.spec.name, session.run_id)


def _hook_can_tell(work: Work, outcome: _outcomes.Run, result: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Whether this very attempt ended in doubt, and a hook may look at once (`Work.settles`)."""
    error = result.error if isinstance(result, Raised) else None
    doubt = isinstance(error, e.InDoubt) and error.step == outcome.step
    return doubt and work.settles and work.spec.reconcile is not None


def _begin(session: Session, call: Call, patience: Patience, *, again: bool) -> Flow[Any]:
    if _failpoints.on is not None:
        _failpoints.hit("sdk.before_begin")
    outcome = yield from session.call(call, _outcomes.Outcome, patience=patience, again=again)
    if _failpoints.on is not None:
        _failpoints.hit("sdk.after_begin")
    return outcome


def _replayed(place: Place, work: Work, outcome: _outcomes.Replay) -> Any:  # noqa: ANN401  # any JSON value
    place.settled = outcome.failure is None or not work.spec.retry_failed
    if outcome.failure is not None:
        said, spec = outcome.failure, work.spec
        raise e.StepFailed(
            step=outcome.step, status=said.status, error=said.error, tool=spec.name, again=spec.effect != "once"
        )
    if outcome.withheld:
        raise e.ResultWithheld(step=outcome.step)
    return work.incoming(outcome.result)


def _run(
    session: Session,
    place: Place,
    work: Work,
    action: Action,
    outcome: _outcomes.Run,
    *,
    asked_at: float,
    own: OwnKey | None,
) -> Flow[Any]:
    credential = receive(outcome, asked_at=asked_at, key=session.key, alive=session.require_held, own=own)
    secrets: list[str] = []
    step = CurrentStep(
        run_id=session.run_id,
        key=outcome.step,
        attempt=outcome.attempt,
        epoch=session.epoch,
        tool=action.tool,
        effect=outcome.grant.effect,
        idempotency_key=outcome.grant.idempotency_key,
        resource=action.resource,
        args=work.args,
    )
    children = Frame(session, outcome.step)
    try:
        with inside(children, Active(step, credential)):
            if _failpoints.on is not None:
                _failpoints.hit("sdk.before_effect")
            came: Returned | Raised = yield Invoke(functools.partial(work.run, credential))
            if _failpoints.on is not None:
                _failpoints.hit("sdk.after_effect")
    finally:
        secrets = end(credential)
    report = _Report(session, place, work, outcome)
    if isinstance(came, Returned) and inspect.isawaitable(came.value):
        came = Raised(_never_awaited(came.value, work))
    if isinstance(came, Raised):
        result: Any = yield from report.raised(came, children, read=outcome.grant.effect == "read")
    else:
        result = yield from report.returned(came.value)
    if report.told and outcome.grant.redeem == "required" and outcome.credential.kind == "jwt":
        LIVE.forget(secrets)
    return result


def _never_awaited(value: Any, work: Work) -> e.ConfigurationError:  # noqa: ANN401  # an awaitable
    if inspect.iscoroutine(value):
        value.close()
    return e.ConfigurationError(f"{work.spec.name} is not `async def` but returned an awaitable; nobody awaited it")


class _Report:
    """Tells the broker how an attempt ended. `told`: it is recorded, and the grant is revoked."""

    def __init__(self, session: Session, place: Place, work: Work, outcome: _outcomes.Run) -> None:
        self.told = False
        self._session = session
        self._place = place
        self._work = work
        self._step = outcome.step
        self._at = (session.run_id, outcome.step, session.epoch, outcome.attempt)

    def returned(self, value: Any) -> Flow[Any]:  # noqa: ANN401  # any result
        """Record the result; what cannot be recorded is withheld."""
        try:
            value = self._work.outgoing(value)
            data = encode(value, f"the result of {self._work.spec.name}")
        except e.StepgrantError as error:
            yield from self._complete(None)
            return Raised(error)
        if LIVE.found_in(data):
            yield from self._complete(None)
            return Raised(e.SecretInResult(step=self._step))
        try:
            yield from self._complete(data)
        except e.BrokerError as error:
            if error.code != "too_large":
                raise
            yield from self._complete(None)
            done = "it is completed and is not done again, but its result is not stored"
            return Raised(too_large(error, self._work.spec.name, self._step, done))
        return self._work.incoming(as_recorded(value, data))

    def _complete(self, data: bytes | None) -> Flow[None]:
        if _failpoints.on is not None:
            _failpoints.hit("sdk.before_complete")
        call = _calls.complete(*self._at, result=data, withheld=data is None)
        try:
            yield from self._session.call(call, _outcomes.Settled)
        except e.BrokerUnavailable as error:
            detail = f"{self._work.spec.name} ran, but its outcome could not be recorded: {error.detail}"
            raise e.BrokerUnavailable(code=error.code, status=error.status, detail=detail) from None
        if _failpoints.on is not None:
            _failpoints.hit("sdk.after_complete")
        self.told = self._place.settled = True

    def raised(self, came: Raised, children: Frame, *, read: bool) -> Flow[Raised]:
        """Record what the exception means, and give it back."""
        error = came.error
        outcome = self._meaning(error, children, read=read)
        if outcome is None:
            call = _calls.suspend(*self._at)
            patience = Patience(_LAST_MOMENT_S)
        else:
            text = LIVE.redacted(f"{type(error).__name__}: {error}")[:_MAX_ERROR_CHARS]
            call = _calls.fail(*self._at, outcome=outcome, error=text)
            patience = Patience(self._session.timeouts.broker)
        try:
            settled: _outcomes.Settled = yield from self._session.call(call, _outcomes.Settled, patience=patience)
        except e.StepgrantError as unheard:
            _log.warning("step %s: the outcome could not be recorded (%s)", self._step, unheard.code)
            error.add_note(f"stepgrant: the outcome of step {self._step!r} could not be recorded ({unheard.code})")
        else:
            self.told = True
            self._place.settled = outcome == "failed" and not self._work.spec.retry_failed
            if self._work.settles and settled.in_doubt is not None:
                return Raised(_doubt_of(error, settled.in_doubt))
        return came

    def _meaning(self, error: BaseException, children: Frame, *, read: bool) -> FailOutcome | None:
        """None: a suspension."""
        if not isinstance(error, Exception) or isinstance(error, (*PAUSES, *self._session.passthrough)):
            return None
        if self._work.passes(error):
            return None
        own_word = isinstance(error, (e.NotExecuted, *self._work.spec.safe_exceptions))
        if own_word and not children.raised_inside(error):
            return "not_executed"
        return "failed" if read else "unknown"


def _doubt_of(error: BaseException, doubt: _outcomes.Doubt) -> e.InDoubt:
    why = f"the tool raised {type(error).__name__}; {doubt.why or 'nobody knows what it did before'}"
    raised = e.InDoubt(step=doubt.step, why=why, options=doubt.options, attempt=doubt.attempt)
    raised.__cause__ = error
    return raised
