"""Approvals: a person's answer to one exact action of one step, used once (`protocol.md` §4).

Rules:
* An approval is bound to tenant, run, step, digest, effect, issuer and parameters; anything else is another question.
* `answer_by` limits the answer, `valid_for` its use: from the later of the answer and the first resume after it.
* One given before counts only while the decision of now asks for nothing stricter; else people are asked again.
* A denial stands for its binding in this run. Quorum counts distinct people, never the run's principal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from stepgrant import canonical
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.decisions import ApprovalSpec, Decision, Deny, Effect, Json, RequireApproval
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import (
    ApprovalExpired,
    DigestMismatch,
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    UnknownApproval,
)
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Approval, ApprovalStatus, Run

VERDICTS = frozenset({"approve", "deny"})


@dataclass(frozen=True, slots=True)
class Binding:
    """What one approval is about. `digest` is the action's digest."""

    tenant: str
    run: str
    step: str
    digest: str
    effect: Effect
    issuer: str
    params: Mapping[str, Json]

    def preimage(self) -> bytes:
        """All of it in canonical bytes: what people are shown, and can compute the digest of."""
        return canonical.dumps(
            {
                "tenant": self.tenant, "run": self.run, "step": self.step, "digest": self.digest,
                "effect": self.effect.value, "issuer": self.issuer, "params": dict(self.params),
            }
        )  # fmt: skip

    def text(self) -> str:
        """The `sha-256:…` digest that the person sees and echoes."""
        return canonical.digest_bytes(self.preimage())


def resume_bytes(run: Run, subject: str) -> bytes:
    """What a resume or takeover by this subject is, in canonical bytes; its digest is the binding's `digest`."""
    return canonical.dumps({"run": run.id, "subject": subject})


def binding_of_resume(run: Run, subject: str, decision: Decision) -> Binding:
    """What an approval of a resume or takeover by this subject would be bound to."""
    spec = decision.grant if not isinstance(decision, Deny) else None
    issuer, params = (spec.issuer, spec.params) if spec is not None else ("", {})
    digest = canonical.digest_bytes(resume_bytes(run, subject))
    return Binding(run.tenant, run.id, RESUME_STEP, digest, Effect.ONCE, issuer, params)


def usable_until(approval: Approval) -> int | None:
    """When an approved answer stops counting (ms); `None` while it is not approved."""
    if approval.settled_at is None:
        return None
    return max(approval.settled_at, approval.resumed_at or 0) + approval.valid_for_ms


def usable(approval: Approval, now: int) -> bool:
    """True when the answer can still be used now."""
    until = usable_until(approval)
    return approval.status is ApprovalStatus.APPROVED and until is not None and now < until


def denies(journal: Journal, step: str, binding_c: str) -> bool:
    """True when people said no to exactly this: that stands in this run, whatever policy asks now."""
    return any(
        one.step == step and one.binding_c == binding_c and one.status is ApprovalStatus.DENIED
        for one in journal.view.approvals.values()
    )


def shown_to_policy(journal: Journal, step: str) -> Approval | None:
    """The step's usable approval, which policy sees as `input.approval`."""
    for approval in journal.view.approvals.values():
        if approval.step == step and usable(approval, journal.now):
            return approval
    return None


class Found(Struct, frozen=True):
    """What exists for a binding: a usable approval, a standing denial, an open question, or why to ask (again)."""

    approved: Approval | None = None
    denied: Approval | None = None
    pending: Approval | None = None
    why_again: str | None = None


def find(journal: Journal, step: str, binding_c: str, asked: ApprovalSpec) -> Found:
    """Look for an answer, or an open question, to exactly this; the newest first."""
    why: str | None = None
    for approval in sorted(journal.view.approvals.values(), key=lambda a: (a.requested_at, a.id), reverse=True):
        if approval.step != step:
            continue
        if approval.binding_c != binding_c:
            why = why or ("action_changed" if approval.status is not ApprovalStatus.CONSUMED else None)
            continue
        found = _weigh(approval, asked, journal.now)
        if found.why_again is None:
            return found
        why = why or found.why_again
    return Found(why_again=why)


def _weigh(approval: Approval, asked: ApprovalSpec, now: int) -> Found:
    """What one approval of the right binding is worth now."""
    spec = ApprovalSpec(approval.groups, approval.quorum)
    match approval.status:
        case ApprovalStatus.DENIED:
            return Found(denied=approval)
        case ApprovalStatus.APPROVED if not asked.not_stricter_than(spec):
            return Found(why_again="policy_stricter")
        case ApprovalStatus.APPROVED:
            return Found(approved=approval) if usable(approval, now) else Found(why_again="answer_expired")
        case ApprovalStatus.PENDING if approval.answer_by <= now:
            return Found(why_again="not_answered_in_time")
        case ApprovalStatus.PENDING:
            same = (spec.groups, spec.quorum) == (asked.groups, asked.quorum)
            return Found(pending=approval) if same else Found(why_again="policy_changed")
        case ApprovalStatus.CONSUMED:
            return Found(why_again="already_used")
        case ApprovalStatus.VOID | ApprovalStatus.EXPIRED:
            return Found(why_again="action_changed")


def request(
    journal: Journal,
    *,
    approval_id: str,
    step: str,
    attempt: int,
    binding: Binding,
    decision: RequireApproval,
    action: Mapping[str, Any],
    decision_member: Mapping[str, Any],
    why_again: str | None,
    limits: Limits,
) -> Approval:
    """Put the question. What its digest is of is kept as a payload, so that people see all that they agree to."""
    asked = decision.approval
    body: dict[str, Any] = {
        "binding_c": journal.commit.digest("approval.binding", binding.preimage()),
        "issuer": binding.issuer,
        "groups": list(asked.groups),
        "quorum": asked.quorum,
        "answer_by": journal.now + 1000 * min(asked.answer_within_s, limits.approval_answer_max_s),
        "valid_for_ms": 1000 * min(asked.valid_for_s, limits.approval_valid_max_s),
    }
    if why_again is not None:
        body["why_again"] = why_again
    journal.add(
        EntryType.APPROVAL_REQUESTED,
        step=step,
        attempt=attempt,
        action=action,
        decision=decision_member,
        approval={"id": approval_id},
        body=body,
    )
    return journal.view.approvals[approval_id]


def decide(
    journal: Journal, approval: Approval, person: PersonCaller, *, verdict: str, digest: str, note: str | None
) -> Approval:
    """Record one person's answer. Raises the errors of `refuse_bad_answer`."""
    refuse_bad_answer(journal, approval, person, verdict=verdict, digest=digest)
    yes = sum(1 for answer in approval.answers if answer.verdict == "approve") + (verdict == "approve")
    if verdict == "deny":
        settled = ApprovalStatus.DENIED
    else:
        settled = ApprovalStatus.APPROVED if yes >= approval.quorum else ApprovalStatus.PENDING
    body: dict[str, Any] = {"verdict": verdict, "settled": settled.value, "operator": person.id}
    if note is not None:
        body["note_c"] = journal.commit.value("approval.note", note)
    journal.add(EntryType.APPROVAL_DECIDED, step=approval.step, approval={"id": approval.id}, body=body)
    return journal.view.approvals[approval.id]


def refuse_bad_answer(journal: Journal, approval: Approval, person: PersonCaller, *, verdict: str, digest: str) -> None:
    """Every reason not to take an answer, the caller's right to give one first."""
    if "approver" not in person.roles:
        raise Forbidden("only an approver can answer; ask an operator for the role approver")
    if approval.groups and not person.groups & set(approval.groups):
        raise Forbidden(f"policy asks for an approver of {', '.join(approval.groups)}")
    if verdict not in VERDICTS:
        raise InvalidRequest("verdict is approve or deny", field="verdict")
    if journal.run.principal_c is not None and journal.run.principal_c == journal.commit.peek("principal", person.name):
        raise Forbidden("the run's principal cannot approve its steps")
    if any(answer.operator == person.id for answer in approval.answers):
        raise DuplicateRequest("you have answered already")
    if approval.binding_c != journal.commit.peek("approval.binding", digest):
        raise DigestMismatch("this is not the digest that was shown for the approval", field="digest")
    if approval.status in {ApprovalStatus.VOID, ApprovalStatus.EXPIRED} or approval.answer_by <= journal.now:
        raise ApprovalExpired("the time to answer is over, or the step has changed; it will be asked again if needed")
    if approval.status is not ApprovalStatus.PENDING:
        raise DuplicateRequest(f"the approval is {approval.status.value} already")
    if journal.run.state.ended:
        raise UnknownApproval("the run has ended")
