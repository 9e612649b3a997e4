"""End a run: `completed` or `failed` by its holder, `cancelled` by its holder or by a person. This is final."""

from __future__ import annotations

from typing import Any, Literal

from stepgrant_broker.domain import outcomes, runs
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.holding import refuse_ended, require_run
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.tenant_call import require_operator
from stepgrant_broker.usecases.transact import Change

Status = Literal["completed", "failed", "cancelled"]


async def end(
    ports: Ports,
    caller: AgentCaller,
    run: str,
    epoch: int,
    status: Status,
    result: outcomes.Result,
    request: Request,
) -> dict[str, Any]:
    """End the run. Raises `StepInDoubt` when completing with open doubts, and the errors of `require_holder`."""
    outcomes.refuse_large(result, ports.limits)

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        result_c = None if result.body is None else journal.commit.digest("outcome.result", result.body)
        runs.end(journal, status, result_c)
        return _answer(journal)

    query = Query(caller.tenant, run=run, unfinished=True)
    return await holder_call(ports, caller, query, epoch, request, call=f"end {status}", act=act)


def _answer(journal: Journal) -> dict[str, Any]:
    return {
        "run": journal.run.id,
        "state": journal.run.state.value,
        "head": journal.head.prev,
        "entries": journal.head.seq,
    }


async def cancel_by_person(ports: Ports, person: PersonCaller, run: str, request: Request) -> dict[str, Any]:
    """Cancel a run that nobody may go on with. Raises `Forbidden`, `UnknownRun`, `RunEnded`."""
    require_operator(person, "cancel a run")

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        known = require_run(loaded, person.tenant)
        refuse_ended(known)
        journal = begin(loaded)
        runs.end(journal, "cancelled", None)
        return Change(_answer(journal), journal, lease_until=loaded.now, raise_guard=True)

    query = Query(person.tenant, run=run, unfinished=True)
    return await person_call(ports, person, query, request, call="cancel", target=run, act=act)
