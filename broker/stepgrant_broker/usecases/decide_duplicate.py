"""A person's word on a call that may be a completed step once more: `replay` or `run`."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import duplicates
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.holding import refuse_ended, require_run
from stepgrant_broker.domain.values import replace
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.reconcile import refuse_unfit_person
from stepgrant_broker.usecases.transact import Change


async def decide_duplicate(
    ports: Ports, person: PersonCaller, run: str, step: str, *, verdict: str, note: str | None, request: Request
) -> dict[str, Any]:
    """Record it. Who could approve one of the two steps may say so; where policy named none, role operator.

    Raises `Forbidden`, `UnknownRun`, `UnknownStep`, `StepDrift`, `InvalidRequest`, `RunEnded`, `DuplicateRequest`.
    """
    query = Query(person.tenant, run=run, step=step)

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        known = loaded.view.steps.get(step)
        if known is not None and known.duplicate_of is not None:
            loaded = await ports.store.load(replace(query, also=(known.duplicate_of,)))
        refuse_ended(require_run(loaded, person.tenant))
        journal = begin(loaded)
        refuse_unfit_person(journal, person, *journal.view.steps)
        done = duplicates.decide(journal, step, verdict, operator=person.id, note=note)
        answer = {"step": step, "of": done.duplicate_of, "verdict": verdict, "state": done.state.value}
        return Change(answer, journal)

    return await person_call(ports, person, query, request, call="duplicate", target=f"{run}/{step}", act=act)
