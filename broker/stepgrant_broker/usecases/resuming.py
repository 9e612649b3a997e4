"""What policy's decision about a resume or takeover comes to: allowed, refused, or a question to people.

Rules: the question binds run and subject under the step `~resume`, and keeps both so that people see who asks; what is
not allowed is recorded before it is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgrant_broker.domain import approvals, runs
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.deciding import decision_member, with_people
from stepgrant_broker.domain.decisions import Allow, Decided, Decision, Deny, Effect
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import ApprovalNeeded, PolicyDenied, StepgrantFault
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Approval
from stepgrant_broker.usecases.context import Ports


@dataclass(frozen=True, slots=True)
class Settled:
    """The entry's `decision` member, the approval that it spends, or the fault to raise once it is recorded."""

    member: dict[str, Any]
    approval: str | None = None
    raising: StepgrantFault | None = None


def is_bound(journal: Journal, caller: AgentCaller, decided: Decided, shown: Approval) -> bool:
    """True when this approval is about this very caller: an answer to one subject lets no other one in."""
    return shown.binding_c == _binding_c(journal, caller, decided.decision)


def _binding_c(journal: Journal, caller: AgentCaller, decision: Decision) -> str:
    binding = approvals.binding_of_resume(journal.run, caller.subject, decision)
    return journal.commit.peek("approval.binding", binding.text())


def settle(
    ports: Ports, journal: Journal, caller: AgentCaller, held: runs.Claim, decided: Decided, shown: Approval | None
) -> Settled:
    """Apply the decision on resume or takeover; what is not allowed is written and then raised.

    `shown` is the approval that policy saw in its input.
    """
    binding = approvals.binding_of_resume(journal.run, caller.subject, decided.decision)
    binding_c = _binding_c(journal, caller, decided.decision)
    decision, found = with_people(journal, RESUME_STEP, binding_c, decided.decision, shown)
    member = decision_member(journal, decided, decision)
    if isinstance(decision, Allow):
        return Settled(member, found.approved.id if found.approved else None)
    action = {
        "tool": held.tool,
        "resource_c": None,
        "digest_c": journal.commit.digest("action.digest", approvals.resume_bytes(journal.run, caller.subject)),
        "effect": Effect.ONCE.value,
    }
    body = {"phase": "resume", "engine": decided.engine}
    journal.add(EntryType.DECISION, step=RESUME_STEP, attempt=1, action=action, decision=member, body=body)
    if isinstance(decision, Deny):
        return Settled(member, raising=denied(decided, decision))
    asked = found.pending or approvals.request(
        journal,
        approval_id="apr_" + ports.ids.ulid(journal.now),
        step=RESUME_STEP,
        attempt=1,
        binding=binding,
        decision=decision,
        action=action,
        decision_member=member,
        why_again=found.why_again,
        limits=ports.limits,
    )
    return Settled(member, raising=_needed(asked))


def _needed(asked: Approval) -> StepgrantFault:
    return ApprovalNeeded(
        "a person must allow this resume first", approval_id=asked.id, answer_by=asked.answer_by, run=asked.run
    )


def denied(decided: Decided, decision: Deny) -> StepgrantFault:
    """The fault for a denial of opening or resuming."""
    return PolicyDenied(
        f"policy denies this: {', '.join(decision.reasons)}",
        reasons=list(decision.reasons),
        decision_id=decided.decision_id,
    )
