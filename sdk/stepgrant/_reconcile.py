"""Settling a doubt with the tool's own hook: look at the target, say what was found, never guess (`protocol.md` §4).

Rules:
* The hook runs as a read step of its own, `<key>~reconcile~<n>` of tool `<tool>.reconcile`, with its own credential and
  under policy like any step.
* `done` counts at once. `not_done` counts only from a look that began when nothing could still happen; the broker says
  how long to wait, then the hook looks again.
* A hook that cannot tell, raises, or is denied leaves the doubt as it is: a person decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._calls import Action
from stepgrant._context import CurrentStep
from stepgrant._flows import Flow, Raised, Sleep
from stepgrant._frames import Frame
from stepgrant._results import encode
from stepgrant._spec import Hook, ToolSpec, Work
from stepgrant._timeouts import Patience

if TYPE_CHECKING:
    from stepgrant._session import Session

__all__ = ["Verdict", "done", "not_done", "settle_doubt", "unknown"]

_log = logging.getLogger("stepgrant")
_VERDICTS: Final = frozenset({"done", "not_done", "unknown"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a hook found. `result` becomes the step's result; `evidence` is a short text for people."""

    verdict: Literal["done", "not_done", "unknown"]
    result: Any = None
    evidence: str | None = None


def done(result: Any = None, *, evidence: str | None = None) -> Verdict:  # noqa: ANN401  # any JSON value
    """It happened; `result` is what the tool would have returned."""
    return Verdict("done", result, evidence)


def not_done(*, evidence: str | None = None) -> Verdict:
    """It did not happen. Only true together with the wait that the broker enforces."""
    return Verdict("not_done", None, evidence)


def unknown(*, evidence: str | None = None) -> Verdict:
    """The target cannot tell: a person decides."""
    return Verdict("unknown", None, evidence)


def settle_doubt(
    session: Session,
    key: str,
    work: Work,
    action: Action,
    doubt: _outcomes.InDoubt,
    guarded: Callable[[Frame, Work], Flow[Any]],
) -> Flow[Raised | None]:
    """Look until the verdict counts. None: settled, begin again. `Raised`: control flow that left the hook.

    Raises `InDoubt` when the doubt stays, and `ApprovalRequired` when a person has to allow the look.
    """
    hook = work.spec.reconcile
    if hook is None:
        raise e.InDoubt(step=key, why=doubt.why or "", options=doubt.options, attempt=doubt.attempt)
    look = _look_work(session, key, work, action, doubt, hook)
    frame = Frame(session, f"{key}~reconcile")
    patience = Patience(session.timeouts.reconcile)
    number = doubt.reconciles
    while True:
        number += 1
        found = yield from _look(frame, replace(look, step_id=str(number)), doubt, guarded)
        if isinstance(found, Raised):
            return found
        verdict = _read(found)
        if verdict.verdict == "unknown":
            raise _stays(doubt, f"the hook cannot tell{': ' + verdict.evidence if verdict.evidence else ''}")
        call = _calls.reconcile(
            session.run_id,
            key,
            session.epoch,
            doubt.attempt,
            verdict=verdict.verdict,
            result=encode(verdict.result, "the hook's result") if verdict.verdict == "done" else None,
            evidence=verdict.evidence,
            via=f"{key}~reconcile~{number}",
        )
        try:
            yield from session.call(call, _outcomes.Settled)
        except e.PriorCredentialLive as early:
            pause = patience.pause(early.retry_after) if early.retry_after is not None else None
            if pause is None:
                raise _stays(doubt, "the hook says not done, but the old credential may still work") from early
            _log.info("step %s: not done, but an old credential lives; looking again in %.1f s", key, pause)
            yield Sleep(pause)
            continue
        return None


def _look_work(session: Session, key: str, work: Work, action: Action, doubt: _outcomes.InDoubt, hook: Hook) -> Work:
    step = CurrentStep(
        run_id=session.run_id,
        key=key,
        attempt=doubt.attempt,
        epoch=session.epoch,
        tool=action.tool,
        effect=action.effect,
        idempotency_key=doubt.idempotency_key,
        resource=action.resource,
        args=work.args,
    )
    resource = action.resource
    spec = ToolSpec(
        f"{action.tool}.reconcile",
        effect="read",
        resource=(lambda _: resource) if resource is not None else None,
        retry_failed=True,
        certificate=work.spec.certificate,
    )
    return Work(spec, work.args, lambda credential: hook.call(step, credential), outgoing=_written)


def _look(frame: Frame, look: Work, doubt: _outcomes.InDoubt, guarded: Callable[[Frame, Work], Flow[Any]]) -> Flow[Any]:
    try:
        found = yield from guarded(frame, look)
    except (e.Denied, e.StepFailed, e.ResultWithheld) as error:
        raise _stays(doubt, f"the hook could not look ({error.code})") from error
    if isinstance(found, Raised) and isinstance(found.error, Exception) and not isinstance(found.error, e.RunNotHeld):
        raise _stays(doubt, f"the hook raised {type(found.error).__name__}") from found.error
    return found


def _stays(doubt: _outcomes.InDoubt, why: str) -> e.InDoubt:
    return e.InDoubt(step=doubt.step, why=f"{doubt.why}; {why}", options=["person"], attempt=doubt.attempt)


def _written(value: Any) -> dict[str, Any]:  # noqa: ANN401  # whatever the hook returned
    if not isinstance(value, Verdict):
        raise e.ConfigurationError("a reconcile hook returns stepgrant.done(...), not_done() or unknown()")
    return {"verdict": value.verdict, "result": value.result, "evidence": value.evidence}


def _read(found: Any) -> Verdict:  # noqa: ANN401  # a recorded result
    if not isinstance(found, dict) or found.get("verdict") not in _VERDICTS:
        return unknown(evidence="the recorded verdict cannot be read")
    return Verdict(found["verdict"], found.get("result"), found.get("evidence"))
