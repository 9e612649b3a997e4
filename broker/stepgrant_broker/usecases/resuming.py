"""What policy's decision about a resume or takeover comes to: allowed, refused, or a question to people.

Rules:
* The question binds run and subject under the step `~resume`, and keeps both so that people see who asks.
* What is not allowed is recorded before it is raised. A refusal that only repeats recorded ones (`ENOUGH` times the
  same workload and subject, attested in the same way, for the same principal; the same revision, effect and reasons;
  nothing but refusals since, less than `AGAIN_MS` ago) is raised under the newest one's id and not written again: a
  worker that tries on for weeks must not grow the run's record without end.
  The first few all stand there: policy counts denials (`history.denials`), and each has the input of its own try.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain import approvals, runs
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.deciding import decision_member, with_people
from stepgrant_broker.domain.decisions import Allow, Decided, Decision, Deny, Effect
from stepgrant_broker.domain.entries import Entry, EntryType
from stepgrant_broker.domain.errors import ApprovalNeeded, PolicyDenied, StepgrantFault
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Approval
from stepgrant_broker.usecases.answers import revealed
from stepgrant_broker.usecases.context import Ports

AGAIN_MS: Final = 86_400_000
"""Refusals that repeat each other enter the record once in this time."""
ENOUGH: Final = 10
"""So many equal refusals are recorded in that time."""
LOOKED_BACK: Final = 100
"""So many of the newest entries are looked at for equal refusals: several subjects may be refused in turns."""
_OWN_OF_EACH: Final = frozenset({"input_c", "decision_id"})
_ATTESTED: Final = ("method", "trust_domain", "subject")


@dataclass(frozen=True, slots=True)
class Settled:
    """The entry's `decision` member, the approval that it spends, or the fault to raise once it is recorded.

    `recorded`: it was before, so that the journal is to be thrown away.
    """

    member: Mapping[str, Any]
    approval: str | None = None
    raising: StepgrantFault | None = None
    recorded: bool = False


def is_bound(journal: Journal, caller: AgentCaller, decided: Decided, shown: Approval) -> bool:
    """True when this approval is about this very caller: an answer to one subject lets no other one in."""
    return shown.binding_c == _binding_c(journal, caller, decided.decision)


def _binding_c(journal: Journal, caller: AgentCaller, decision: Decision) -> str:
    binding = approvals.binding_of_resume(journal.run, caller.subject, decision)
    return journal.commit.peek("approval.binding", binding.text())


async def settle(
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
    entry = journal.add(EntryType.DECISION, step=RESUME_STEP, attempt=1, action=action, decision=member, body=body)
    refused = isinstance(decision, Deny) or found.pending is not None
    before = await _equal_before(ports, entry, decided) if refused else None
    if isinstance(decision, Deny):
        known = str((before or member)["decision_id"])
        return Settled(before or member, raising=denied(known, decision), recorded=before is not None)
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
    return Settled(before or member, raising=_needed(asked), recorded=before is not None)


async def _equal_before(ports: Ports, entry: Entry, decided: Decided) -> Mapping[str, Any] | None:
    """The `decision` of the newest of the recorded refusals, if this one would only repeat them."""
    new, equal = _what_counts(entry.fields), list[Mapping[str, Any]]()
    rows = await ports.reads.entries(entry.tenant, entry.run, after=entry.seq - 1 - LOOKED_BACK, limit=LOOKED_BACK)
    for row in reversed(rows):
        fields: Mapping[str, Any] = json.loads(row.data)
        if not _is_refusal(fields) or entry.ts - fields["ts"] >= AGAIN_MS:
            break
        if _what_counts(fields) == new:
            equal.append(fields["decision"])
    if len(equal) < ENOUGH:
        return None
    inputs = await ports.reads.payloads(entry.tenant, entry.run or "", [one["input_c"] for one in equal])
    who = _who(canonical.loads(decided.input))
    same = [one for one in equal if _who(revealed(inputs, one["input_c"])) == who]
    return dict(same[0]) if len(same) >= ENOUGH else None


def _who(document: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Of a decision's input: who asked, how that was attested, and for whom. Nothing of an input that is gone.

    Not what may be new with each try: the other attributes, labels and the version.
    """
    if not isinstance(document, dict):
        return []
    # One subject may stand for two workloads (two keys of one name, two trust rules), the kill switch for one of them.
    identity = document["identity"]
    who = [*(identity[name] for name in _ATTESTED), identity["attributes"].get("workload")]
    return [*who, document["agent"]["name"], document["claimed"]["principal"]]


def _is_refusal(fields: Mapping[str, Any]) -> bool:
    """Or the question that came of it."""
    return fields["step"] == RESUME_STEP and fields["type"] in {EntryType.DECISION, EntryType.APPROVAL_REQUESTED}


def _what_counts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The action's digest is of run and subject."""
    decision = {name: value for name, value in (fields["decision"] or {}).items() if name not in _OWN_OF_EACH}
    return {"decision": decision, **{name: fields[name] for name in ("type", "action", "body")}}


def _needed(asked: Approval) -> StepgrantFault:
    return ApprovalNeeded(
        "a person must allow this resume first", approval_id=asked.id, answer_by=asked.answer_by, run=asked.run
    )


def denied(decision_id: str, decision: Deny) -> StepgrantFault:
    """The fault for a denial of opening or resuming."""
    return PolicyDenied(
        f"policy denies this: {', '.join(decision.reasons)}",
        reasons=list(decision.reasons),
        decision_id=decision_id,
    )
