"""A person's word on a call that may be a completed step once more: `replay` or `run`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stepgrant_broker.domain import duplicates
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.holding import refuse_ended, require_run
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.reconcile import refuse_unfit_person
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_person,
    journal_for,
    scope_of,
    transact,
)


async def decide_duplicate(
    ports: Ports, person: PersonCaller, run: str, step: str, *, verdict: str, note: str | None, request: Request
) -> dict[str, Any]:
    """Record it. Who could approve one of the two steps may say so; where policy named none, role operator.

    Raises `Forbidden`, `UnknownRun`, `UnknownStep`, `StepDrift`, `InvalidRequest`, `RunEnded`, `DuplicateRequest`.
    """
    scope = scope_of(person.tenant, person.id, "duplicate", f"{run}/{step}", None, request.idempotency_key)
    query = Query(person.tenant, run=run, step=step, answer=scope)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        known = loaded.view.steps.get(step)
        if known is not None and known.duplicate_of is not None:
            loaded = await ports.store.load(replace(query, also=(known.duplicate_of,)))
        refuse_ended(require_run(loaded, person.tenant))
        journal = journal_for(ports, loaded, by_person(person))
        refuse_unfit_person(journal, person, *journal.view.steps)
        done = duplicates.decide(journal, step, verdict, operator=person.id, note=note)
        answer = {"step": step, "of": done.duplicate_of, "verdict": verdict, "state": done.state.value}
        return Change(answer, journal, stored=answer)

    return await transact(ports, query, work, request=request)
