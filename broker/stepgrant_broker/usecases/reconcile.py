"""Reconcile a step in doubt: by its hook (an agent, with a look that began late enough), or by a person."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.errors import Forbidden, InvalidRequest
from stepgrant_broker.domain.holding import refuse_ended, require_run
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Step
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.transact import Change


async def reconcile(
    ports: Ports,
    caller: AgentCaller,
    run: str,
    step: str,
    epoch: int,
    said: outcomes.Verdict,
    request: Request,
) -> dict[str, Any]:
    """A hook's verdict. Raises `PriorCredentialLive` when its look began too early, `InvalidRequest`, `UnknownStep`."""
    outcomes.refuse_large(said.result, ports.limits)

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        return _answer(outcomes.reconcile(journal, step, said, ports.limits))

    query = Query(caller.tenant, run=run, step=step, also=(said.via,) if said.via else ())
    return await holder_call(ports, caller, query, epoch, request, call="reconcile", act=act)


def _answer(step: Step) -> dict[str, Any]:
    return {"step": step.key, "attempt": step.attempt, "state": step.state.value, "reconciles": step.reconciles}


async def reconcile_by_person(
    ports: Ports, person: PersonCaller, run: str, step: str, said: outcomes.Verdict, request: Request
) -> dict[str, Any]:
    """A person's verdict. A step that needed approval needs a person of the same groups; else role operator."""

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        held = require_run(loaded, person.tenant)
        refuse_ended(held)
        if said.via is not None:
            raise InvalidRequest("a person names no hook", field="via")
        journal = begin(loaded)
        refuse_unfit_person(journal, person, step)
        done = outcomes.reconcile(journal, step, said, ports.limits, operator=person.id)
        return Change(_answer(done), journal)

    query = Query(person.tenant, run=run, step=step)
    return await person_call(ports, person, query, request, call="reconcile", target=f"{run}/{step}", act=act)


def refuse_unfit_person(journal: Journal, person: PersonCaller, *steps: str) -> None:
    """Raises `Forbidden`: groups that could approve one of the steps, or role operator where policy named none."""
    groups: set[str] = set()
    for approval in journal.view.approvals.values():
        if approval.step in steps:
            groups.update(approval.groups)
    if groups and not person.groups & groups:
        raise Forbidden(f"this step is settled by people of {', '.join(sorted(groups))}")
    if not groups and "operator" not in person.roles:
        raise Forbidden("only an operator can settle this step by hand")
