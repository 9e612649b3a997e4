"""Open a run, or resume or take over one that is not ended (`protocol.md` §2, §4).

Rules:
* Opening and resuming are actions: policy of now is asked, with a new attestation and a key that is new to the run.
* `require_approval` on open is a denial. On resume and takeover it binds the run and the subject under step `~resume`.
* A refused open enters the tenant's own chain; a refused resume the run's, unless it only repeats one (`resuming.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain import approvals, policy_input, runs
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.deciding import decision_member, on_open
from stepgrant_broker.domain.decisions import Allow, Decided, Deny, Effect, Json
from stepgrant_broker.domain.entries import GENESIS, EntryType, Head
from stepgrant_broker.domain.errors import (
    Forbidden,
    InvalidRequest,
    UnknownRun,
)
from stepgrant_broker.domain.grants import needs_confirmation
from stepgrant_broker.domain.holding import refuse_quarantined
from stepgrant_broker.domain.ids import NAME, OPEN_STEP, RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Approval, Grant, Run, StepState, View
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports, present
from stepgrant_broker.usecases.deciding import decide
from stepgrant_broker.usecases.leases import take_back, transact_and_take_back
from stepgrant_broker.usecases.resuming import denied, is_bound, settle
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_agent,
    journal_for,
    scope_of,
)

LABELS_MAX = 32
TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class OpenCall:
    """The body of open. `input_bytes`: the input's JCS bytes, `None` without one. `resume`: a new run is not opened."""

    run_key: str
    agent: str
    version: str | None
    input_bytes: bytes | None
    labels: Mapping[str, str]
    principal: str | None
    takeover: bool
    resume: bool = False


def refuse_bad_call(call: OpenCall, caller: AgentCaller, limit: int) -> None:
    """Raises `InvalidRequest` for malformed members, `Forbidden` for an agent name outside the enrolment."""
    if not 1 <= len(call.run_key) <= TEXT_MAX or not call.run_key.isprintable():
        raise InvalidRequest(f"run_key is 1 to {TEXT_MAX} printable characters", field="run_key")
    if not NAME.fullmatch(call.agent):
        raise InvalidRequest("agent is a name of letters, digits and . _ / : @ -", field="agent")
    if len(call.labels) > LABELS_MAX or any(len(k) > TEXT_MAX or len(v) > TEXT_MAX for k, v in call.labels.items()):
        raise InvalidRequest(f"at most {LABELS_MAX} labels of {TEXT_MAX} characters", field="labels")
    if call.input_bytes is not None and len(call.input_bytes) > limit:
        raise InvalidRequest(f"the input is over {limit} bytes", field="input")
    if call.agent not in caller.workload.agents:
        raise Forbidden(f"this workload is not enrolled for agent {call.agent}; an operator can enrol it")


async def open_run(ports: Ports, caller: AgentCaller, call: OpenCall, request: Request) -> dict[str, Any]:
    """Open or resume. Raises `PolicyDenied`, `ApprovalNeeded`, `LeaseHeld`, `RunEnded`, `SetAside`, `UnknownRun`."""
    refuse_bad_call(call, caller, ports.limits.max_input_bytes)
    target = f"{call.agent}/{call.run_key}"
    scope = scope_of(caller.tenant, caller.jkt, "open", target, None, request.idempotency_key)
    query = Query(caller.tenant, run_key=(call.agent, call.run_key), unfinished=True, step=RESUME_STEP, answer=scope)
    dying: list[Grant] = []

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        runs.refuse_stale_attestation(caller, loaded.now, ports.limits)
        refuse_quarantined(loaded.quarantines, loaded.now, agent=call.agent, workload=caller.workload)
        if loaded.view.run is None:
            if call.resume:
                raise UnknownRun("there is no run of this agent with this key")
            return await open_new(ports, caller, call, loaded, _held)
        dying[:] = [grant for grant in loaded.view.grants.values() if needs_confirmation(grant)]
        return await _resume(ports, caller, call, loaded, loaded.view.run)

    answer = await transact_and_take_back(ports, query, work, proof=caller.proof, request=request)
    # What the sweeper took back a moment ago may live still. It dies before the new holder gets anything, if it can be.
    await take_back(ports, dying)
    return answer


Opened = Callable[["Ports", "Journal", "Loaded", "OpenCall"], tuple[dict[str, Any], int]]
"""What a new run goes on with: the answer, and the end of its lease (ms)."""


def _held(ports: Ports, journal: Journal, loaded: Loaded, call: OpenCall) -> tuple[dict[str, Any], int]:
    return _answer(ports, journal, loaded, call.input_bytes, resumed=False), loaded.now + ports.limits.lease_ms


async def open_new(
    ports: Ports, caller: AgentCaller, call: OpenCall, loaded: Loaded, opened: Opened
) -> Change[dict[str, Any]]:
    """Ask policy and write a new run. A refusal enters the tenant's chain."""
    document = policy_input.for_run(
        caller,
        tool=runs.OPEN_TOOL,
        step=OPEN_STEP,
        agent=call.agent,
        version=call.version,
        run=None,
        run_key=call.run_key,
        args={"takeover": False, "same_subject": True, "lease_lapsed": True, "parked_seconds": 0, "agent": call.agent},
        labels=call.labels,
        principal=call.principal,
        parked_ms=0,
        approval=None,
        now=loaded.now,
    )
    decided = await decide(ports, document, loaded.tenant.policy_revision)
    decision = on_open(decided.decision)
    if isinstance(decision, Deny):
        return _refused_open(ports, caller, call, loaded, decided, decision)
    run_id = "run_" + ports.ids.ulid(loaded.now)
    key = ports.new_chain_key(caller.tenant, run_id)
    head = Head(caller.tenant, run_id, 0, GENESIS, 0)
    journal = journal_for(ports, loaded, by_agent(caller), view=View(), head=head, key=key)
    runs.open_run(
        journal,
        caller,
        run_key=call.run_key,
        agent=call.agent,
        version=call.version,
        labels=call.labels,
        input_c=_input_c(journal, call),
        principal=(call.principal, "claimed") if call.principal is not None else None,
        decision=decision_member(journal, decided, decision),
    )
    answer, lease = opened(ports, journal, loaded, call)
    return Change(answer, journal, rows=(key,), lease_until=lease, guarded=True, stored=answer)


def _input_c(journal: Journal, call: OpenCall) -> str | None:
    return None if call.input_bytes is None else journal.commit.digest("run.input", call.input_bytes)


def _refused_open(
    ports: Ports, caller: AgentCaller, call: OpenCall, loaded: Loaded, decided: Decided, decision: Deny
) -> Change[dict[str, Any]]:
    journal = journal_for(ports, loaded, by_agent(caller), key=present(loaded.tenant_key))
    journal.add(
        EntryType.DECISION,
        agent={"name": call.agent, "jkt": caller.jkt, "version": call.version},
        action={
            "tool": runs.OPEN_TOOL,
            "resource_c": None,
            "digest_c": journal.commit.value("run.key", call.run_key),
            "effect": Effect.ONCE.value,
        },
        decision=decision_member(journal, decided, decision),
        body={"phase": "open", "engine": decided.engine},
    )
    return Change({}, journal, raising=denied(decided.decision_id, decision))


async def _resume(
    ports: Ports, caller: AgentCaller, call: OpenCall, loaded: Loaded, run: Run
) -> Change[dict[str, Any]]:
    journal = journal_for(ports, loaded, by_agent(caller))
    subject_c = journal.commit.peek("by.subject", caller.subject)
    held = runs.claim(loaded, run, caller, subject_c, takeover=call.takeover)
    runs.refuse_other_input(run, _input_c(journal, call))
    decided, shown = await _decided(ports, caller, call, loaded, journal, held)
    settled = await settle(ports, journal, caller, held, decided, shown)
    if settled.raising is not None:
        written = journal_for(ports, loaded, by_agent(caller)) if settled.recorded else journal
        return Change({}, written, raising=settled.raising)
    runs.resume_run(journal, caller, held, version=call.version, decision=settled.member, approval=settled.approval)
    payload = loaded.payloads.get(run.input_c or "")
    answer = _answer(ports, journal, loaded, payload.body if payload else None, resumed=True)
    return Change(answer, journal, lease_until=loaded.now + ports.limits.lease_ms, guarded=True, stored=answer)


async def _decided(
    ports: Ports, caller: AgentCaller, call: OpenCall, loaded: Loaded, journal: Journal, held: runs.Claim
) -> tuple[Decided, Approval | None]:
    """Policy's word on the resume, with the approval that it saw."""
    run, active = journal.run, loaded.tenant.policy_revision
    args: dict[str, Json] = {
        "takeover": held.tool == runs.TAKEOVER_TOOL,
        "same_subject": held.same_subject,
        "lease_lapsed": held.lease_lapsed,
        "parked_seconds": held.parked_ms // 1000,
        "agent": run.agent,
    }
    document = partial(
        policy_input.for_run,
        caller,
        tool=held.tool,
        step=RESUME_STEP,
        agent=run.agent,
        version=call.version,
        run=run,
        run_key=None,
        args=args,
        labels=run.labels,
        principal=answers.revealed(loaded.payloads, run.principal_c),
        parked_ms=held.parked_ms,
        now=loaded.now,
    )
    shown = approvals.shown_to_policy(journal, RESUME_STEP)
    decided = await decide(ports, document(approval=shown), active)
    if shown is not None and isinstance(decided.decision, Allow) and not is_bound(journal, caller, decided, shown):
        # Policy allowed because people had let somebody else in: it decides again without that answer.
        return await decide(ports, document(approval=None), active), None
    return decided, shown


def _answer(
    ports: Ports, journal: Journal, loaded: Loaded, input_bytes: bytes | None, *, resumed: bool
) -> dict[str, Any]:
    run = journal.run
    doubtful = [s for s in journal.view.steps.values() if s.state is StepState.IN_DOUBT]
    return {
        "run": run.id,
        "run_key": run.key,
        "agent": run.agent,
        "epoch": run.epoch,
        "resumed": resumed,
        "lease_ms": ports.limits.lease_ms,
        "lease_until": loaded.now + ports.limits.lease_ms,
        "input": canonical.loads(input_bytes) if input_bytes is not None else None,
        "has_input": input_bytes is not None,
        "history": {
            "steps": run.step_count,
            "outcomes": dict(run.history.outcomes),
            "tools": dict(run.history.tools),
            "parked_ms": run.parked_ms,
        },
        "in_doubt": [answers.doubtful(step) for step in sorted(doubtful, key=lambda s: s.position)],
    }
