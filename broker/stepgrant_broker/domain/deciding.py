"""From a decision of policy to what happens: a refusal, a question to people, or a grant.

Rules:
* An effect looser than `once` needs policy to confirm it; an unconfirmed one is a denial, not a guess.
* A `RequireApproval` that a valid approval meets is an allow, and that approval is spent by the grant's commit.
* Labels and meters count once per step: a later attempt adds only what is not counted yet.
* A grant's end is the earliest of policy's, the approval's, the identity's and the issuer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from stepgrant_broker.domain import approvals
from stepgrant_broker.domain.calls import Ask, Ready, Refusal, StepCall, Suspected, Waiting
from stepgrant_broker.domain.decisions import (
    MICRO,
    Allow,
    Decided,
    Decision,
    Deny,
    Duplicate,
    Effect,
    GrantSpec,
    RedeemMode,
    RequireApproval,
    effect_of,
)
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Approval

LOOSENESS = {Effect.ONCE: 0, Effect.IDEMPOTENT: 1, Effect.READ: 2}


class IssuerFacts(Struct, frozen=True):
    """What the machine must know of the chosen issuer."""

    name: str
    revocation: Revocation
    outside: bool
    max_ttl_s: int
    tokens_of_ours: bool


class Allowed(Struct, frozen=True):
    """Policy (and, where it asked, people) consent; ready to issue."""

    allow: Allow
    action: Mapping[str, Any]
    decided: Decided
    ask: Ask
    approval: Approval | None


def close(decision: Decision, call: StepCall) -> Decision:
    """The decision with the rules that no policy can relax."""
    if isinstance(decision, Deny):
        return decision
    if call.preimage is None:
        if not decision.grant.digest_only:
            return Deny(("arguments_required",))
        if isinstance(decision, RequireApproval):
            return Deny(("approval_needs_arguments",))
    confirmed = decision.grant.effect or Effect.ONCE
    if LOOSENESS[confirmed] < LOOSENESS[call.effect]:
        return Deny(("effect_not_confirmed",))
    return decision


def on_open(decision: Decision) -> Decision:
    """A decision about opening a run: there is nothing yet that people could be asked about."""
    if isinstance(decision, RequireApproval):
        return Deny(("approval_not_possible_on_open", *decision.reasons))
    return decision


def with_people(
    journal: Journal, step: str, binding_c: str, decision: Decision, shown: Approval | None = None
) -> tuple[Decision, approvals.Found]:
    """What the decision is by what people have said of this binding already.

    A denial stands, also where policy would not ask any more. `shown` is the approval that policy saw in its input: if
    it allowed and the answer is about this very thing, it is spent as if it had been asked for.
    """
    if isinstance(decision, Deny):
        return decision, approvals.Found()
    if isinstance(decision, RequireApproval):
        found = approvals.find(journal, step, binding_c, decision.approval)
        if found.denied is not None:
            return Deny(("approval_denied",)), found
        return (decision.met(found.approved.id) if found.approved is not None else decision), found
    if approvals.denies(journal, step, binding_c):
        return Deny(("approval_denied",)), approvals.Found()
    bound = shown is not None and shown.binding_c == binding_c
    return decision, approvals.Found(approved=shown if bound else None)


def decision_member(journal: Journal, decided: Decided, decision: Decision) -> dict[str, Any]:
    """The `decision` member of entries; the exact input is kept as a payload, for replay and explanation."""
    return {
        "effect": effect_of(decision),
        "reasons": list(decision.reasons),
        "policy_revision": decided.revision,
        "input_c": journal.commit.digest("decision.input", decided.input),
        "decision_id": decided.decision_id,
    }


def binding_of(journal: Journal, call: StepCall, grant: GrantSpec) -> approvals.Binding:
    """What an approval of this call would be bound to."""
    run = journal.run
    return approvals.Binding(run.tenant, run.id, call.step, call.digest, call.effect, grant.issuer, grant.params)


def settle(
    journal: Journal,
    call: StepCall,
    ask: Ask,
    action: Mapping[str, Any],
    decided: Decided,
    *,
    phase: str,
    approval_id: Callable[[], str],
    shown: Approval | None,
    limits: Limits,
) -> Allowed | Refusal | Waiting | Suspected:
    """Write the decision and say what follows. `shown` is the approval that policy saw in its input."""
    decision = close(decided.decision, call)
    duplicate = word_on_duplicate(ask, decision)
    if duplicate == "ask":
        # Whoever must approve it is asked only once it is known to be another call.
        member = decision_member(journal, decided, decision)
        write_decision(journal, call, ask, action, member, phase=phase, engine=decided.engine, duplicate=duplicate)
        return Suspected(journal.step(call.step), ask.equal_to or "")
    decision, found = with_people(journal, call.step, _binding_c(journal, call, decision), decision, shown)
    member = decision_member(journal, decided, decision)
    write_decision(journal, call, ask, action, member, phase=phase, engine=decided.engine, duplicate=duplicate)
    match decision:
        case Deny(reasons):
            return Refusal(reasons, decided.decision_id)
        case RequireApproval():
            if found.pending is not None:
                return Waiting(found.pending)
            binding = binding_of(journal, call, decision.grant)
            asked = approvals.request(
                journal, approval_id=approval_id(), step=call.step, attempt=ask.attempt, binding=binding,
                decision=decision, action=action, decision_member=member, why_again=found.why_again, limits=limits,
            )  # fmt: skip
            return Waiting(asked)
        case Allow():
            return Allowed(decision, action, decided, ask, found.approved)


def _binding_c(journal: Journal, call: StepCall, decision: Decision) -> str:
    """What an approval of this is bound to; nothing where nobody was or is asked."""
    if isinstance(decision, Deny) or not (journal.view.approvals or isinstance(decision, RequireApproval)):
        return ""
    return journal.commit.peek("approval.binding", binding_of(journal, call, decision.grant).text())


def is_bound(journal: Journal, call: StepCall, decision: Allow, shown: Approval) -> bool:
    """True when this approval is about exactly what the decision would grant."""
    return shown.binding_c == _binding_c(journal, call, decision)


def word_on_duplicate(ask: Ask, decision: Decision) -> Duplicate | None:
    """What policy says of a call that may be a completed step once more; `None` for others, and where it denies."""
    if ask.equal_to is None or isinstance(decision, Deny):
        return None
    return decision.grant.duplicate


def write_decision(
    journal: Journal,
    call: StepCall,
    ask: Ask,
    action: Mapping[str, Any],
    member: Mapping[str, Any],
    *,
    phase: str,
    engine: str,
    duplicate: Duplicate | None = None,
) -> None:
    """Write what policy decided about a step."""
    body: dict[str, Any] = {"phase": phase, "engine": engine}
    if call.issuer is not None:
        body["requested"] = call.issuer
    if duplicate is not None:
        body["duplicate"] = duplicate
    journal.add(EntryType.DECISION, step=call.step, attempt=ask.attempt, action=action, decision=member, body=body)


def expiry(allowed: Allowed, issuer: IssuerFacts, *, now: int, not_after: int, limits: Limits) -> int:
    """When the grant ends (ms, whole seconds): policy, approval, identity and issuer, whichever is first."""
    wanted = allowed.allow.grant.ttl_s or limits.grant_ttl_s
    ends = [now + 1000 * min(wanted, limits.grant_ttl_max_s, issuer.max_ttl_s), not_after]
    if allowed.approval is not None:
        until = approvals.usable_until(allowed.approval)
        ends.append(until if until is not None else now)
    return min(ends) // 1000 * 1000


def redeem_mode(allowed: Allowed, call: StepCall, issuer: IssuerFacts) -> RedeemMode:
    """Whether the grant must be redeemed before it is used. Only tokens of ours can be."""
    if not issuer.tokens_of_ours:
        return RedeemMode.OPTIONAL
    return allowed.allow.grant.redeem or RedeemMode.default_for(call.effect)


def issue(
    journal: Journal,
    call: StepCall,
    allowed: Allowed,
    issuer: IssuerFacts,
    *,
    jti: str,
    exp: int,
    audience: str,
    redeem: RedeemMode,
    request: str,
    handle: str | None = None,
) -> Ready:
    """Write the grant; with `handle`, an outside issuer's intent. The credential is made only after this is durable."""
    spec, held = allowed.allow.grant, counted_meters(journal, call.step)
    prior = [grant.jti for grant in journal.view.grants.values() if grant.request == request]
    body: dict[str, Any] = {
        "audience": audience,
        "redeem": str(redeem),
        "revocation": str(issuer.revocation),
        "issued_at": journal.now,
        "labels": sorted(set(allowed.allow.labels) - counted_labels(journal, call.step)),
        "meters": {
            name: amount - held.get(name, 0)
            for name, amount in allowed.allow.meters.items()
            if amount > held.get(name, 0)
        },
        "params": dict(spec.params),
        "jkt": journal.run.jkt,
        "intent": issuer.outside,
        "request": request,
    }
    if prior:
        body["inherits"] = prior[0]
        body["not_received"] = call.not_received
    if call.csr is not None:
        body["csr_key"] = call.csr.key
    named: dict[str, Any] = {"jti": jti, "issuer": issuer.name, "exp": exp}
    if handle is not None:
        named["handle_c"] = journal.commit.value("grant.handle", handle)
    journal.add(
        EntryType.GRANT_ISSUED,
        step=call.step,
        attempt=allowed.ask.attempt,
        action=allowed.action,
        approval={"id": allowed.approval.id} if allowed.approval is not None else None,
        grant=named,
        body=body,
    )
    return Ready(journal.step(call.step), journal.view.grants[jti])


def counted_labels(journal: Journal, step: str) -> set[str]:
    """The labels that this step's earlier grants count already."""
    return {label for grant in journal.view.grants.values() if grant.step == step for label in grant.labels}


def counted_meters(journal: Journal, step: str) -> dict[str, int]:
    """The meters (in millionths) that this step's earlier grants count already."""
    meters: dict[str, int] = {}
    for grant in journal.view.grants.values():
        if grant.step == step:
            for name, amount in grant.meters.items():
                meters[name] = meters.get(name, 0) + amount
    return meters


def meter_number(micro: int) -> int | float:
    """A meter as policy sees it: a whole number where it is one."""
    whole, rest = divmod(micro, MICRO)
    return whole if rest == 0 else micro / MICRO
