"""What is only looked at: runs with their steps, entries, decisions and receipts, approvals, policies, the ledger.

Rules:
* A workload sees the runs that it opened or holds; every other run does not exist for it. The one exception: of an
  agent that it is enrolled for it may list those that somebody should go on with, or it could not offer itself.
* A person of any role sees all of the own tenant and nothing of another; the tenant's own chain is for operators.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.api import shapes, shapes_people, shapes_runs
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.messages import Answer as HttpAnswer
from stepgrant_broker.api.paging import ApprovalQuery, EntryQuery, PageQuery, ReceiptQuery, RunQuery, page_of
from stepgrant_broker.api.routing import Call, Endpoint, Nothing, either, people
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.errors import Forbidden, InvalidRequest, NotFound, UnknownRun, UnknownStep
from stepgrant_broker.domain.fold.common import the_run
from stepgrant_broker.domain.reads import Page, StoredEntry
from stepgrant_broker.domain.standing import Standing
from stepgrant_broker.domain.state import Step
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.show_approval import show_approval

Answer = dict[str, Any]
Anybody = AgentCaller | PersonCaller
ENTRIES_AT_ONCE: Final = 500
MAX_POLICY: Final = 67_108_864


async def visible_run(api: Api, call: Call[Anybody, Any]) -> Loaded:
    """The run of the path, if the caller may see it. Raises `UnknownRun`."""
    caller, run = call.caller, call.segment("run")
    loaded = await api.ports.store.load(Query(caller.tenant, run=run))
    known = loaded.view.run
    if known is None or known.tenant != caller.tenant:
        raise UnknownRun("no such run")
    if isinstance(caller, AgentCaller) and known.workload != caller.workload.id:
        # It may have held an older epoch; all epochs come only with the unfinished work.
        loaded = await api.ports.store.load(Query(caller.tenant, run=run, unfinished=True))
        if caller.workload.id not in {epoch.workload for epoch in loaded.view.epochs.values()}:
            raise UnknownRun("no such run")
    return loaded


async def list_runs(api: Api, call: Call[Anybody, RunQuery]) -> Answer:
    """Runs, newest first; for a workload those that it holds. Those that are resumable: oldest first."""
    taken, caller = call.taken, call.caller
    workload = caller.workload.id if isinstance(caller, AgentCaller) else None
    if isinstance(caller, AgentCaller) and taken.resumable and taken.agent in caller.workload.agents:
        workload = None
    rows = await api.ports.reads.standings(
        caller.tenant,
        page_of(taken),
        workload=workload,
        agent=taken.agent,
        state=taken.state,
        resumable=taken.resumable,
    )
    now = rows.rows[0].now if rows.rows else await api.ports.reads.now()
    return {"runs": [answers.run(row) for row in rows.rows], "next": rows.next, "now": now}


async def show_run(api: Api, call: Call[Anybody, Nothing]) -> Answer:
    """One run."""
    await visible_run(api, call)
    known = await _standing(api, call.caller.tenant, call.segment("run"))
    detail = known.run.park_detail_c
    payloads = await api.ports.reads.payloads(known.run.tenant, known.run.id, [detail]) if detail is not None else {}
    return {**answers.run(known), "park_detail": answers.revealed(payloads, detail)}


async def _standing(api: Api, tenant: str, run: str) -> Standing:
    """A run that was seen to be there. Raises `UnknownRun`."""
    found = await api.ports.reads.standings(tenant, Page(1), run=run)
    if not found.rows:
        raise UnknownRun("no such run")
    return found.rows[0]


async def list_steps(api: Api, call: Call[Anybody, PageQuery]) -> Answer:
    """The steps of a run, in their order."""
    of = the_run((await visible_run(api, call)).view)
    rows = await api.ports.reads.steps(of.tenant, of.id, page_of(call.taken))
    payloads = await _payloads(api, of.tenant, of.id, rows.rows)
    return {"steps": [answers.step(step, payloads, of) for step in rows.rows], "next": rows.next}


async def show_step(api: Api, call: Call[Anybody, Nothing]) -> Answer:
    """One step with its result."""
    of, key = the_run((await visible_run(api, call)).view), call.segment("step")
    step = (await api.ports.store.load(Query(of.tenant, run=of.id, step=key))).view.steps.get(key)
    if step is None:
        raise UnknownStep("no such step in this run")
    return answers.step(step, await _payloads(api, of.tenant, of.id, [step]), of)


async def _payloads(api: Api, tenant: str, run: str, steps: Iterable[Step]) -> Mapping[str, Payload]:
    """What stands behind the commitments that a step shows."""
    wanted = {c for step in steps for c in (step.resource_c, step.result_c, step.error_c) if c is not None}
    return await api.ports.reads.payloads(tenant, run, sorted(wanted)) if wanted else {}


async def run_entries(api: Api, call: Call[Anybody, EntryQuery]) -> Answer:
    """The entries of a run, as the exact bytes that are hashed."""
    await visible_run(api, call)
    return await _entries(api, call.caller.tenant, call.segment("run"), call.taken)


async def ledger_entries(api: Api, call: Call[PersonCaller, EntryQuery]) -> Answer:
    """The entries of the tenant's own chain: enrolments, people, policies, kill switches."""
    if "operator" not in call.caller.roles:
        raise Forbidden("only an operator can read the tenant's own chain")
    return await _entries(api, call.caller.tenant, None, call.taken)


async def _entries(api: Api, tenant: str, run: str | None, query: EntryQuery) -> Answer:
    rows = await api.ports.reads.entries(tenant, run, after=query.after, limit=query.limit)
    return {"entries": [_entry(row) for row in rows], "next": rows[-1].seq if len(rows) == query.limit else None}


def _entry(row: StoredEntry) -> Answer:
    return {"seq": row.seq, "data": canonical.b64u(row.data), "leaf_index": row.leaf_index}


async def receipt(api: Api, call: Call[Anybody, ReceiptQuery]) -> HttpAnswer:
    """The receipt of the run, or of one step or grant: entries, disclosures, heads and proofs; verify it offline."""
    await visible_run(api, call)
    step, grant = call.taken.step, call.taken.grant
    if step is not None and grant is not None:
        raise InvalidRequest("say step or grant, not both", field="grant")
    scope = ("step", step) if step is not None else ("grant", grant) if grant is not None else None
    made = await api.make_receipt(call.caller.tenant, call.segment("run"), scope=scope)
    # A long run's receipt has many megabytes; writing it must not hold up everybody else.
    return HttpAnswer(200, await asyncio.to_thread(canonical.dumps, made))


async def show_decision(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """A recorded decision with the input it was made on, to be explained or replayed."""
    of = (await api.ports.store.load(Query(call.caller.tenant, run=call.segment("run")))).view.run
    if of is None:
        raise UnknownRun("no such run")
    tenant, run, wanted = call.caller.tenant, call.segment("run"), call.segment("decision")
    after = -1
    while rows := await api.ports.reads.entries(tenant, run, after=after, limit=ENTRIES_AT_ONCE):
        for row in rows:
            entry = canonical.loads(row.data)
            made = entry.get("decision") if isinstance(entry, dict) else None
            if isinstance(entry, dict) and isinstance(made, dict) and made.get("decision_id") == wanted:
                shown = await _decision(api, tenant, run, dict(entry), dict(made))
                return {**shown, "erased": of.erased_at is not None}
        after = rows[-1].seq
    raise NotFound("no such decision in this run")


async def _decision(api: Api, tenant: str, run: str, entry: Answer, made: Answer) -> Answer:
    payload = (await api.ports.reads.payloads(tenant, run, [made["input_c"]])).get(made["input_c"])
    return {
        "decision_id": made["decision_id"],
        "seq": entry["seq"],
        "step": entry["step"],
        "effect": made["effect"],
        "reasons": made["reasons"],
        "policy_revision": made["policy_revision"],
        "engine": entry["body"].get("engine"),
        "input": None if payload is None else canonical.loads(payload.body),
    }


async def list_approvals(api: Api, call: Call[PersonCaller, ApprovalQuery]) -> Answer:
    """Approvals of the tenant, newest first."""
    taken = call.taken
    rows = await api.ports.reads.approvals(call.caller.tenant, page_of(taken), run=taken.run, status=taken.status)
    return {"approvals": [answers.approval(row) for row in rows.rows], "next": rows.next}


async def show_approval_(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """One approval with the exact action and all that an answer is bound to; an answer must echo the digest of that."""
    shown = await show_approval(api.ports, call.caller.tenant, call.segment("approval"))
    return {**shown, "run_facts": answers.run(await _standing(api, call.caller.tenant, shown["run"]))}


async def list_policies(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """All activated policies, newest first."""
    tenant = call.caller.tenant
    active = (await api.ports.store.load(Query(tenant))).tenant.policy_revision
    rows = await api.ports.reads.policies(tenant)
    return {
        "policies": [
            {"revision": row.revision, "activated_at": row.activated_at, "active": row.revision == active}
            for row in rows
        ]
    }


async def show_policy(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """A policy with its sources; none, where what is kept is no longer what was activated, but no text at all."""
    found = await api.ports.reads.policy(call.caller.tenant, call.segment("revision"))
    if found is None:
        raise NotFound("no such policy revision")
    return {"revision": found.revision, "activated_at": found.activated_at, "text": _sources(found.text)}


def _sources(data: bytes) -> dict[str, str]:
    """What the bytes of a policy say. Whoever reads it compares its digest with the revision, so nothing is no harm."""
    try:
        text = canonical.loads(bytes(data), max_bytes=MAX_POLICY)
    except (canonical.CanonicalError, TypeError):
        return {}
    files = text if isinstance(text, dict) else {}
    return {path: source for path, source in files.items() if isinstance(source, str)}


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    either("GET", "/v1/runs", list_runs, RunQuery, shapes_runs.Runs),
    either("GET", "/v1/runs/{run}", show_run, Nothing, shapes_runs.ShownRun),
    either("GET", "/v1/runs/{run}/steps", list_steps, PageQuery, shapes.Steps),
    either("GET", "/v1/runs/{run}/steps/{step}", show_step, Nothing, shapes.StepView),
    either("GET", "/v1/runs/{run}/entries", run_entries, EntryQuery, shapes.Entries),
    either("GET", "/v1/runs/{run}/receipt", receipt, ReceiptQuery, dict[str, Any]),
    people("GET", "/v1/runs/{run}/decisions/{decision}", show_decision, Nothing, shapes_people.DecisionView),
    people("GET", "/v1/approvals", list_approvals, ApprovalQuery, shapes_people.Approvals),
    people("GET", "/v1/approvals/{approval}", show_approval_, Nothing, shapes_people.ShownApproval),
    people("GET", "/v1/ledger/entries", ledger_entries, EntryQuery, shapes.Entries),
    people("GET", "/v1/policies", list_policies, Nothing, shapes_people.Policies),
    people("GET", "/v1/policies/{revision}", show_policy, Nothing, shapes_people.PolicyWithText),
)
