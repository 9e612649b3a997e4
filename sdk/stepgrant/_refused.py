"""Why a tool did not run, as errors that name the call: which tool, which step, what is the matter, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._flows import Flow
from stepgrant._frames import Place
from stepgrant._session import Session
from stepgrant._timeouts import Patience

_LOOK_S: Final = 5.0
_FIXED: Final = {"effect": "effect", "idempotency_key": "idempotency key", "result": "result"}


def refusal(place: Place, outcome: Any, tool: str, run: str) -> e.StepNotRun:  # noqa: ANN401  # the rest of the union
    """The error for an outcome under which the tool does not run."""
    match outcome:
        case _outcomes.Denied():
            place.settled = True
            at = {"tool": tool, "step": place.key, "run": run}
            return e.Denied(reasons=outcome.reasons, decision_id=outcome.decision_id, **at)
        case _outcomes.ApprovalRequired():
            return e.ApprovalRequired(approval_id=outcome.approval_id, answer_by=outcome.answer_by)
        case _outcomes.InDoubt():
            why = outcome.why or "no outcome was recorded"
            return e.InDoubt(
                step=outcome.step, why=why, options=outcome.options, attempt=outcome.attempt, blocked=outcome.blocked
            )
        case _:
            return e.SuspectedDuplicate(of=outcome.of, options=outcome.options, step=outcome.step)


def named(
    flow: Flow[Any],
    session: Session,
    key: str,
    tool: str,
    resource: Callable[[], str | None] = lambda: None,
    *,
    ran: bool = False,
) -> Flow[Any]:
    """The flow of one call; the broker's refusals of it, which speak of the request, name tool and step.

    `ran`: the function may have been called before the broker was asked, as that of a recorded step is.
    """
    try:
        return (yield from flow)
    except e.StepDrift as said:
        if said.step is not None:
            raise  # of a step inside, which has its name
        raise (yield from _drift(session, key, tool, resource(), said, ran=ran)) from None
    except e.BrokerError as said:
        if said.code != "too_large" or " (step " in said.detail:  # named already, of the hook
            raise
        raise too_large(said, tool, key, "nothing of it is recorded" if ran else "it was not begun") from None


def too_large(said: e.BrokerError, tool: str, key: str, then: str) -> e.BrokerError:
    """The same refusal, with the call that it is about. `then`: what that means for the step."""
    detail = f"{tool} (step {key}): {said.detail or 'too large'}; {then}"
    return e.BrokerError(code=said.code, status=said.status, title=said.title, detail=detail)


def _drift(
    session: Session, key: str, tool: str, resource: str | None, said: e.StepDrift, *, ran: bool
) -> Flow[e.StepDrift]:
    known: _outcomes.ShownStep | None = None
    try:
        call = _calls.show_step(session.run_id, key)
        known = yield from session.call(call, _outcomes.ShownStep, patience=Patience(_LOOK_S))
    except e.StepgrantError:
        known = None  # that it drifted stands without it
    before = None if known is None or not known.tool or known.tool == tool else known.tool
    differs = _differs(said, known, tool, resource)
    ran = ran or differs == _FIXED["result"]  # It is compared with what a call came to.
    return e.StepDrift(str(said), tool=tool, step=key, run=session.run_id, differs=differs, before=before, ran=ran)


def _differs(said: e.StepDrift, known: _outcomes.ShownStep | None, tool: str, resource: str | None) -> str:
    if said.differs in _FIXED:
        return _FIXED[said.differs]
    if known is None or not known.tool:
        return "tool, resource or arguments"
    if known.tool != tool:
        return "tool"
    return "resource" if known.resource != resource else "arguments"
