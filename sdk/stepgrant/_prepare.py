"""Asking before acting: records a step and has it decided, and mints nothing (`integrations.md` R1).

For frameworks that decide before, and apart from, executing. The answer is advice: the call itself is decided again,
against the state that its grant commits. Asking uses no ordinal up, so the call that follows is the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stepgrant import _calls, _outcomes
from stepgrant._flows import Flow
from stepgrant._frames import Frame
from stepgrant._refused import named
from stepgrant._spec import Work


@dataclass(frozen=True, slots=True)
class Advice:
    """What a call would come to now. What does not apply to its `outcome` is None or empty.

    Args:
        outcome: `run`; `replay` (it has an outcome already); or why the tool would not run.
        step: the step's key; of a call whose id was lost, the key that it had before; in a doubt, the step in doubt.
        attempt: the attempt that it would be.
        reasons: policy's codes, where it is denied.
        decision_id: finds the decision in the ledger.
        approval_id: what a person has to answer.
        answer_by: until when, in milliseconds since the epoch.
        options: how to settle a doubt or a suspected duplicate.
    """

    outcome: Literal["run", "replay", "denied", "approval_required", "in_doubt", "suspected_duplicate"]
    step: str
    attempt: int | None = None
    reasons: Sequence[str] = ()
    decision_id: str | None = None
    approval_id: str | None = None
    answer_by: int | None = None
    options: Sequence[str] = ()


def prepared(frame: Frame, work: Work) -> Flow[Advice]:
    """The flow of one question. Raises as the call would, but for outcomes, which are the answer."""
    session = frame.session
    with frame.call(work.spec.name, work.named_id(), work.source) as place:
        call = _calls.prepare(session.run_id, place.key, session.epoch, work.action(), place.source)
        asked = session.call(call, _outcomes.Prepared)
        outcome = yield from named(asked, session, place.key, work.spec.name, work.resource)
    return _advice(place.key, outcome)


def _advice(step: str, outcome: Any) -> Advice:  # noqa: ANN401  # the union, for which `read` has no type
    match outcome:
        case _outcomes.Ready():
            return Advice("run", outcome.step, attempt=outcome.attempt)
        case _outcomes.Replay():
            return Advice("replay", outcome.step, attempt=outcome.attempt)
        case _outcomes.Denied():
            return Advice("denied", step, reasons=tuple(outcome.reasons), decision_id=outcome.decision_id)
        case _outcomes.ApprovalRequired():
            return Advice("approval_required", step, approval_id=outcome.approval_id, answer_by=outcome.answer_by)
        case _outcomes.InDoubt():
            return Advice("in_doubt", outcome.step, attempt=outcome.attempt, options=tuple(outcome.options))
        case _:
            return Advice("suspected_duplicate", outcome.step or step, options=tuple(outcome.options))
