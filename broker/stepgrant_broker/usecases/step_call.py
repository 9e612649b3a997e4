"""What prepare, start and begin share: consider, ask policy, settle, and (unless preparing) issue.

`start` and `begin` decide against the state that their grant's commit compares, so two prepared steps cannot share one
budget. The credential is minted after the commit: a grant that is not recorded is never released.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Literal

from stepgrant_broker.domain import approvals, deciding, duplicates, lost_ids, policy_input, steps
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.calls import (
    Ask,
    BeingRevoked,
    Doubtful,
    Ready,
    Refusal,
    Replayed,
    Settled,
    StepCall,
    Suspected,
    Waiting,
)
from stepgrant_broker.domain.decisions import Allow, Decided
from stepgrant_broker.domain.errors import (
    ApprovalNeeded,
    DuplicateSuspected,
    PolicyDenied,
    PriorCredentialLive,
    StepgrantFault,
    StepInDoubt,
    UnknownStep,
)
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import GrantOrder
from stepgrant_broker.domain.state import Approval
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers, leases
from stepgrant_broker.usecases.context import Ports, present
from stepgrant_broker.usecases.deciding import decide
from stepgrant_broker.usecases.issuing import Desk, Granted, issue, release
from stepgrant_broker.usecases.transact import Change, Repeat, answered_before, by_agent, journal_for, scope_of

Phase = Literal["prepare", "start", "begin"]
AGAIN_MS: Final = 100


async def run_call(
    ports: Ports, caller: AgentCaller, run: str, call: StepCall, request: Request, phase: Phase
) -> dict[str, Any]:
    """The answer to a prepare, start or begin, with the credential if one was granted."""
    scope = scope_of(caller.tenant, caller.jkt, phase, f"{run}/{call.step}", call.epoch, request.idempotency_key)
    query = Query(caller.tenant, run=run, step=call.step, answer=scope)
    desk = Desk(ports, caller, call, scope)

    work = partial(_decide, desk, query, call, request, phase)
    granted: Granted | None = None
    tried = False
    try:
        while granted is None:
            try:
                granted = await leases.transact_and_take_back(ports, query, work, proof=caller.proof, request=request)
            except PriorCredentialLive:
                # What older epochs held is killed here and now, if it can be, before the caller is told to wait.
                if tried or desk.taking_back or not await leases.confirm_older(ports, caller.tenant, run):
                    raise
                tried = True
    except BaseException:
        await leases.forget(desk.intents)
        raise
    if desk.intents:
        await leases.forget(desk.unused(granted))
    return await release(desk, granted)


async def _decide(
    desk: Desk, query: Query, call: StepCall, request: Request, phase: Phase, loaded: Loaded
) -> Change[Granted] | Repeat[Granted]:
    ports, caller = desk.ports, desk.caller
    wider = lost_ids.wider(query, loaded, call, lambda: ports.committer(present(loaded.key)).peek)
    if wider is not None:
        loaded = await ports.store.load(wider)
    require_holder(loaded, caller, call.epoch)
    before = answered_before(ports, loaded, request)
    if before is not None:
        return Repeat(Granted(before))
    if phase == "start" and call.step not in loaded.view.steps:
        raise UnknownStep("prepare the step first, or use begin")
    journal = journal_for(ports, loaded, by_agent(caller))
    desk.call = call = steps.meant(journal, call)
    act = phase != "prepare"
    considered = steps.consider(journal, call, ports.limits, act=act, request=desk.scope)
    order: GrantOrder | None = None
    if isinstance(considered, BeingRevoked):
        desk.taking_back = True
        return Change(Granted({}), journal, guarded=act, raising=_comes_again(considered))
    if isinstance(considered, Ask):
        settled, order = await _ask(desk, considered, phase, loaded, journal)
    else:
        settled = considered
    answer = answers.settled(settled, loaded.payloads)
    return Change(
        Granted(answer, settled if isinstance(settled, Ready) else None, order),
        journal,
        lease_until=loaded.now + ports.limits.lease_ms,
        guarded=act,
        raising=_refusal(settled, phase),
        stored=answer if phase == "prepare" else None,
    )


def _comes_again(known: BeingRevoked) -> StepgrantFault:
    return PriorCredentialLive(
        "the credential that was not received is being taken back; call again", retry_after_ms=AGAIN_MS, step=known.step
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
        case Suspected(step, of):
            return DuplicateSuspected("a person must say whether this is another call", step=step.key, of=of)
        case Ready() | Replayed():
            return None


async def _ask(
    desk: Desk, ask: Ask, phase: Phase, loaded: Loaded, journal: Journal
) -> tuple[Settled, GrantOrder | None]:
    ports, call = desk.ports, desk.call
    decided, shown = await _decided(ports, desk.caller, call, ask, loaded, journal)
    replayed = duplicates.replay_by_policy(journal, call, ask, decided, phase=phase)
    if replayed is not None:
        return replayed, None
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
    return await issue(desk, settled, loaded, journal)


async def _decided(
    ports: Ports, caller: AgentCaller, call: StepCall, ask: Ask, loaded: Loaded, journal: Journal
) -> tuple[Decided, Approval | None]:
    principal = answers.revealed(loaded.payloads, journal.run.principal_c)
    shown = None if ask.new else approvals.shown_to_policy(journal, call.step)
    active = loaded.tenant.policy_revision
    document = policy_input.for_step(journal, caller, call, ask, shown, principal)
    decided = await decide(ports, document, active)
    if shown is None:
        return decided, None
    allowed = deciding.close(decided.decision, call)
    if isinstance(allowed, Allow) and not deciding.is_bound(journal, call, allowed, shown):
        # Policy allowed because it saw an answer that is about something else: it decides again without it.
        document = policy_input.for_step(journal, caller, call, ask, None, principal)
        return await decide(ports, document, active), None
    return decided, shown
