"""What prepare, start and begin share: consider, ask policy, settle, and (unless preparing) issue.

`start` and `begin` decide against the state that their grant's commit compares, so two prepared steps cannot share one
budget. The credential is minted after the commit: a grant that is not recorded is never released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stepgrant_broker.domain import approvals, deciding, policy_input, steps
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.calls import Ask, Doubtful, Ready, Refusal, Replayed, Settled, StepCall, Waiting
from stepgrant_broker.domain.decisions import Allow, Decided
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import (
    ApprovalNeeded,
    InvalidToken,
    IssuerUnavailable,
    PolicyDenied,
    StepgrantFault,
    StepInDoubt,
    UnknownStep,
)
from stepgrant_broker.domain.grants import is_open
from stepgrant_broker.domain.holding import refuse_quarantined, require_holder
from stepgrant_broker.domain.journal import BROKER, Journal
from stepgrant_broker.domain.ports import GrantOrder, Issuer
from stepgrant_broker.domain.state import Approval, Grant
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.deciding import decide
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_agent,
    journal_for,
    scope_of,
    transact,
)

Phase = Literal["prepare", "start", "begin"]


@dataclass(frozen=True, slots=True)
class Granted:
    """What a start wants minted once it is durable."""

    answer: dict[str, Any]
    order: GrantOrder | None
    grant: Grant | None


async def run_call(
    ports: Ports, caller: AgentCaller, run: str, call: StepCall, request: Request, phase: Phase
) -> dict[str, Any]:
    """The answer to a prepare, start or begin, with the credential if one was granted."""
    scope = scope_of(caller.tenant, caller.jkt, phase, f"{run}/{call.step}", call.epoch, request.idempotency_key)
    query = Query(caller.tenant, run=run, step=call.step, answer=scope)

    async def work(loaded: Loaded) -> Change[Granted] | Repeat[Granted]:
        return await _decide(ports, caller, call, request, phase, loaded, scope)

    granted = await transact(ports, query, work, proof=caller.proof, request=request)
    if granted.order is None or granted.grant is None:
        return granted.answer
    return await _release(ports, caller, granted)


async def _decide(
    ports: Ports, caller: AgentCaller, call: StepCall, request: Request, phase: Phase, loaded: Loaded, scope: str
) -> Change[Granted] | Repeat[Granted]:
    require_holder(loaded, caller, call.epoch)
    before = answered_before(ports, loaded, request)
    if before is not None:
        return Repeat(Granted(before, None, None))
    if phase == "start" and call.step not in loaded.view.steps:
        raise UnknownStep("prepare the step first, or use begin")
    journal = journal_for(ports, loaded, by_agent(caller))
    act = phase != "prepare"
    considered = steps.consider(journal, call, ports.limits, act=act, request=scope)
    order: GrantOrder | None = None
    if isinstance(considered, Ask):
        settled, order = await _ask(ports, caller, call, considered, phase, loaded, journal, scope)
    else:
        settled = considered
    answer = answers.settled(settled, loaded.payloads)
    grant = settled.grant if isinstance(settled, Ready) else None
    return Change(
        Granted(answer, order, grant),
        journal,
        lease_until=loaded.now + ports.limits.lease_ms,
        guarded=act,
        raising=_refusal(settled, phase),
        stored=answer if phase == "prepare" else None,
    )


def _refusal(settled: Settled, phase: Phase) -> StepgrantFault | None:
    """`start` has no outcomes but a grant and a replay: what policy refuses there is an error, recorded first."""
    if phase != "start":
        return None
    match settled:
        case Refusal(reasons, decision_id):
            return PolicyDenied("policy denies this step now", reasons=list(reasons), decision_id=decision_id)
        case Waiting(approval):
            return ApprovalNeeded("a person must answer first", approval_id=approval.id, answer_by=approval.answer_by)
        case Doubtful(step):
            return StepInDoubt("the step's outcome is not known; reconcile it first", step=step.key)
        case Ready() | Replayed():
            return None


async def _ask(
    ports: Ports,
    caller: AgentCaller,
    call: StepCall,
    ask: Ask,
    phase: Phase,
    loaded: Loaded,
    journal: Journal,
    scope: str,
) -> tuple[Settled, GrantOrder | None]:
    decided, shown = await _decided(ports, caller, call, ask, loaded, journal)
    action = steps.prepare(journal, call, ask)
    settled = deciding.settle(
        journal,
        call,
        ask,
        action,
        decided,
        phase=phase,
        approval_id=lambda: "apr_" + ports.ids.ulid(journal.now),
        shown=shown,
        limits=ports.limits,
    )
    if not isinstance(settled, deciding.Allowed):
        return settled, None
    if phase == "prepare":
        return Ready(journal.step(call.step)), None
    return _issue(ports, caller, call, settled, loaded, journal, scope)


async def _decided(
    ports: Ports, caller: AgentCaller, call: StepCall, ask: Ask, loaded: Loaded, journal: Journal
) -> tuple[Decided, Approval | None]:
    principal = answers.revealed(loaded.payloads, journal.run.principal_c)
    shown = None if ask.new else approvals.shown_to_policy(journal, call.step)
    active = loaded.tenant.policy_revision
    document = policy_input.for_step(journal, caller, call, ask, shown, principal)
    decided = await decide(ports, document, active)
    allowed = deciding.close(decided.decision, call)
    if shown is not None and isinstance(allowed, Allow) and not deciding.is_bound(journal, call, allowed, shown):
        # Policy allowed because it saw an answer that is about something else: it decides again without it.
        document = policy_input.for_step(journal, caller, call, ask, None, principal)
        return await decide(ports, document, active), None
    return decided, shown


def _issuer(ports: Ports, name: str) -> Issuer:
    issuer = ports.issuers.get(name)
    if issuer is None:
        raise IssuerUnavailable(f"policy chose issuer {name}, which this broker does not have")
    return issuer


def _issue(
    ports: Ports,
    caller: AgentCaller,
    call: StepCall,
    allowed: deciding.Allowed,
    loaded: Loaded,
    journal: Journal,
    scope: str,
) -> tuple[Settled, GrantOrder]:
    spec = allowed.allow.grant
    issuer = _issuer(ports, spec.issuer)
    refuse_quarantined(loaded.quarantines, loaded.now, issuer=spec.issuer)
    facts = deciding.IssuerFacts(
        issuer.name, issuer.revocation, issuer.outside, issuer.max_ttl_s, issuer.tokens_of_ours
    )
    exp = deciding.expiry(allowed, facts, now=journal.now, not_after=caller.not_after, limits=ports.limits)
    if exp <= journal.now:
        raise InvalidToken("identity or approval ends too soon for a grant; exchange again")
    ready = deciding.issue(
        journal,
        call,
        allowed,
        facts,
        jti="grn_" + ports.ids.ulid(journal.now),
        exp=exp,
        audience=spec.audience or f"urn:stepgrant:tool:{call.tool}",
        request=scope,
    )
    return ready, _order(caller, call, allowed, journal, ready)


def _order(
    caller: AgentCaller, call: StepCall, allowed: deciding.Allowed, journal: Journal, ready: Ready
) -> GrantOrder:
    grant, step, run = ready.grant, ready.step, journal.run
    if grant is None:
        raise LookupError("an order needs a grant")
    return GrantOrder(
        tenant=run.tenant,
        run=run.id,
        step=step.key,
        attempt=grant.attempt,
        epoch=grant.epoch,
        jti=grant.jti,
        subject=caller.subject,
        client_id=caller.workload.id,
        instance=caller.jkt,
        jkt=grant.jkt,
        audience=grant.audience,
        tool=grant.tool,
        resource=call.resource,
        args_digest=call.digest,
        effect=grant.effect.value,
        idempotency_key=step.idempotency_key,
        redeem=grant.redeem.value,
        issued_at=grant.issued_at,
        expires_at=grant.exp,
        policy_revision=allowed.decided.revision,
        decision_id=allowed.decided.decision_id,
        approval_id=grant.approval,
        principal=None,
        params=grant.params,
        csr=None if call.csr is None else call.csr.pem,
    )


async def _release(ports: Ports, caller: AgentCaller, granted: Granted) -> dict[str, Any]:
    """Mint for a recorded grant. What the issuer cannot give is recorded as `grant_failed`."""
    order, grant = granted.order, granted.grant
    if order is None or grant is None:
        raise LookupError("nothing was granted")
    try:
        issuer = _issuer(ports, grant.issuer)
        ports.failpoints.hit("usecase.before_mint")
        minted = await issuer.mint(order, None)
        issuer.check(order, minted)
    except IssuerUnavailable as fault:
        await _record_failure(ports, caller.tenant, grant, fault.detail)
        raise
    ports.failpoints.hit("usecase.after_mint")
    return {**granted.answer, "credential": answers.credential(minted, grant, order.run)}


async def _record_failure(ports: Ports, tenant: str, grant: Grant, detail: str) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        journal = journal_for(ports, loaded, BROKER)
        known = journal.view.grants.get(grant.jti)
        if known is None or not is_open(known):
            return Repeat(None)
        journal.add(
            EntryType.GRANT_FAILED,
            step=grant.step,
            attempt=grant.attempt,
            epoch=grant.epoch,
            action=journal.action_of(known),
            grant={"jti": grant.jti, "issuer": grant.issuer, "exp": grant.exp},
            body={"detail": detail[:200]},
        )
        return Change(None, journal)

    await transact(ports, Query(tenant, run=grant.run, step=grant.step), work)
