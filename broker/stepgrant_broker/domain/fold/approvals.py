"""Folders of approval entries."""

from __future__ import annotations

from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.fold.common import At, evolve, the_run, with_approval, with_step
from stepgrant_broker.domain.state import Answer, Approval, ApprovalStatus, StepState, View

UNDECIDED = frozenset({StepState.PREPARED, StepState.DENIED, StepState.AWAITING_APPROVAL})
"""States that a decision may change; a running step is not stopped because somebody asks about it again."""


def requested(view: View, at: At) -> View:
    """A question is put to people; an older open question of the same step is void."""
    run, action, body, decision = the_run(view), at.part("action"), at.body, at.part("decision")
    approval = Approval(
        id=at.part("approval")["id"],
        run=run.id,
        tenant=run.tenant,
        step=at.step,
        binding_c=body["binding_c"],
        tool=action["tool"],
        effect=Effect(action["effect"]),
        issuer=body["issuer"],
        groups=tuple(body["groups"]),
        quorum=body["quorum"],
        requested_at=at.ts,
        answer_by=body["answer_by"],
        valid_for_ms=body["valid_for_ms"],
        revision=decision["policy_revision"],
        reasons=tuple(decision["reasons"]),
        status=ApprovalStatus.PENDING,
        why_again=body.get("why_again"),
    )
    for old in view.approvals.values():
        if old.step == at.step and old.status in {ApprovalStatus.PENDING, ApprovalStatus.APPROVED}:
            view = with_approval(view, evolve(old, status=ApprovalStatus.VOID))
    view = with_approval(view, approval)
    step = view.steps.get(at.step)
    if step is None or step.state not in UNDECIDED:
        return view
    return with_step(view, evolve(step, state=StepState.AWAITING_APPROVAL, approval=approval.id))


def decided(view: View, at: At) -> View:
    """One person's answer; `settled` says what the question became by it."""
    approval, body = view.approvals[at.part("approval")["id"]], at.body
    answer = Answer(body["operator"], at.part("by")["subject_c"], body["verdict"], at.ts)
    status = ApprovalStatus(body["settled"])
    return with_approval(
        view,
        evolve(
            approval,
            answers=(*approval.answers, answer),
            status=status,
            settled_at=None if status is ApprovalStatus.PENDING else at.ts,
        ),
    )
