"""What a parked run would ask policy next, if it were resumed now: the resume itself, and each step that waits.

Rules:
* The next input is the one that was recorded last for this action, with what is different by now: epoch, time parked,
  history, approvals, attestation and time. That the same workload comes back with the same call is assumed, and said.
* Answers are weighed by the same functions that settle a call, on the run as a resume would leave it.
* Only looked at: no entry, no lease, no grant comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepgrant_broker.domain import approvals, deciding, policy_input, steps
from stepgrant_broker.domain.decisions import Decision, Deny, RequireApproval, effect_of
from stepgrant_broker.domain.fold.common import evolve
from stepgrant_broker.domain.fold.runs import longest_away
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.replaying import Document, Remade, Shown, call_of, journal_at, of_resume, of_step
from stepgrant_broker.domain.runs import RESUME_TOOL
from stepgrant_broker.domain.state import Approval, ApprovalStatus, Run, RunState, Step, StepState, View


@dataclass(frozen=True, slots=True)
class NextAction:
    """One question to policy about the parked `run`. `journal` is the run as it would be then, `document` the input."""

    run: Run
    step: str
    tool: str
    document: Document = field(repr=False)
    journal: Journal = field(repr=False)
    bindings: Mapping[str, str] = field(repr=False)
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Unasked:
    """A step that policy is not asked about now: `in_doubt`, or `input_erased`."""

    run: Run
    step: str
    tool: str
    why: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an open question or an unused answer. `fate`: kept, void, not_needed, refused, or unknown.

    `why`: of a void one, as people will be told when they are asked again.
    """

    approval: str
    status: str
    fate: str
    why: str | None = None


class Newest:
    """The newest input of each step of a run, out of its entries."""

    def __init__(self) -> None:
        self.inputs: dict[str, Document] = {}
        self.any: Document | None = None
        """The newest of all."""

    def read(self, shown: Shown) -> None:
        """Keep what this entry was decided on."""
        if shown.input is not None:
            self.any = shown.input
            self.inputs[shown.entry.step or ""] = shown.input


def next_actions(view: View, newest: Newest, bindings: Mapping[str, str], now: int) -> Iterator[NextAction | Unasked]:
    """What this run asks next. Nothing, unless it is parked."""
    run = view.run
    if run is None or run.state is not RunState.PARKED:
        return
    parked_ms = max(0, now - (run.parked_at if run.parked_at is not None else now))
    journal = journal_at(view, run.tenant, now)
    if newest.any is None:
        yield Unasked(run, RESUME_STEP, RESUME_TOOL, "input_erased")
        return
    shown = approvals.shown_to_policy(journal, RESUME_STEP)
    document = policy_input.again_for_resume(newest.any, journal, RESUME_TOOL, parked_ms, shown)
    yield NextAction(run, RESUME_STEP, RESUME_TOOL, document, journal, bindings, resumes=True)
    resumed = journal_at(_resumed(view, run, parked_ms, now), run.tenant, now)
    for step in sorted(resumed.view.steps.values(), key=lambda one: one.position):
        if not step.state.done and step.state is not StepState.ADOPTED:
            yield from _of_step(run, resumed, step, newest, bindings)


def _resumed(view: View, run: Run, parked_ms: int, now: int) -> View:
    """The run as the same workload's resume would leave it."""
    away = longest_away(run, parked_ms)
    resumed = evolve(run, state=RunState.OPEN, epoch=run.epoch + 1, parked_at=None, parked_ms=away, park_reason=None)
    answered = {
        key: evolve(one, resumed_at=now)
        for key, one in view.approvals.items()
        if one.status is ApprovalStatus.APPROVED and one.resumed_at is None
    }
    return evolve(view, run=resumed, approvals={**view.approvals, **answered})


def _of_step(
    run: Run, journal: Journal, step: Step, newest: Newest, bindings: Mapping[str, str]
) -> Iterator[NextAction | Unasked]:
    ask = steps.asked_next(journal, step)
    if ask is None:
        if step.state is not StepState.FAILED:
            yield Unasked(run, step.key, step.tool, "in_doubt")
        return
    recorded = newest.inputs.get(step.key)
    if recorded is None:
        yield Unasked(run, step.key, step.tool, "input_erased")
        return
    shown = approvals.shown_to_policy(journal, step.key)
    document = policy_input.again_for_step(recorded, journal, step, ask, shown)
    yield NextAction(run, step.key, step.tool, document, journal, bindings)


def weighed(action: NextAction, said: Decision) -> Remade:
    """What policy's word on the next action would come to."""
    terms: Mapping[str, Any]
    if action.resumes:
        decision, terms = of_resume(action.journal, action.bindings, _subject(action), said)
    else:
        duplicate = _duplicate(action, said)
        decision, terms = of_step(action.journal, action.bindings, action.document, said, duplicate)
    return Remade(effect_of(decision), decision.reasons, terms)


def _duplicate(action: NextAction, said: Decision) -> str | None:
    if isinstance(said, Deny) or "equal_to" not in action.document["step"]:
        return None
    return said.grant.duplicate


def _subject(action: NextAction) -> str:
    return str(action.document["identity"]["subject"])


def fates(action: NextAction, said: Decision) -> Iterator[Fate]:
    """What policy's word would make of the questions and answers that stand open for this action."""
    journal = action.journal
    decision = said if action.resumes else deciding.close(said, call_of(action.document))
    for approval in journal.view.approvals.values():
        if approval.step == action.step and _stands(approval, journal.now):
            yield _fate(action, approval, decision)


def _stands(approval: Approval, now: int) -> bool:
    if approval.status is ApprovalStatus.PENDING:
        return approval.answer_by > now
    return approvals.usable(approval, now)


def _fate(action: NextAction, approval: Approval, decision: Decision) -> Fate:
    status = approval.status.value
    if not isinstance(decision, RequireApproval):
        return Fate(approval.id, status, "refused" if isinstance(decision, Deny) else "not_needed")
    if approval.binding_c not in action.bindings.values():
        return Fate(approval.id, status, "unknown")
    if action.resumes:
        binding = approvals.binding_of_resume(action.journal.run, _subject(action), decision)
    else:
        binding = deciding.binding_of(action.journal, call_of(action.document), decision.grant)
    binding_c = action.bindings.get(binding.text(), "")
    found = approvals.find(action.journal, action.step, binding_c, decision.approval)
    if approval.id in {one.id for one in (found.pending, found.approved) if one is not None}:
        return Fate(approval.id, status, "kept")
    return Fate(approval.id, status, "void", found.why_again)
