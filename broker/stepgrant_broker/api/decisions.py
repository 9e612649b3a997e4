"""Decisions as evidence: the entries of a chain with the inputs that were decided on, for whoever makes them again."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.api import shapes_people
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.messages import Answer
from stepgrant_broker.api.paging import EntryQuery
from stepgrant_broker.api.routing import Call, Endpoint, people
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.errors import Forbidden, UnknownRun
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.evidence import Evidence, evidence


async def run_decisions(api: Api, call: Call[PersonCaller, EntryQuery]) -> Answer:
    """The entries of a run with the inputs of its decisions, to be replayed."""
    tenant, run = call.caller.tenant, call.segment("run")
    if (await api.ports.store.load(Query(tenant, run=run))).view.run is None:
        raise UnknownRun("no such run")
    return await _page(api, tenant, run, call.taken)


async def tenant_decisions(api: Api, call: Call[PersonCaller, EntryQuery]) -> Answer:
    """The entries of the tenant's own chain with the inputs of its decisions: runs that were not opened."""
    if "operator" not in call.caller.roles:
        raise Forbidden("only an operator can read the tenant's own chain")
    return await _page(api, call.caller.tenant, None, call.taken)


async def _page(api: Api, tenant: str, run: str | None, query: EntryQuery) -> Answer:
    found = await evidence(api.ports, tenant, run, after=query.after, limit=query.limit)
    # Inputs are large; writing a page of them must not hold up everybody else.
    return Answer(200, await asyncio.to_thread(canonical.dumps, _as_json(found, query.limit)))


def _as_json(found: Evidence, limit: int) -> dict[str, Any]:
    rows = found.entries
    return {
        "entries": [{"seq": row.seq, "data": canonical.b64u(row.data), "leaf_index": row.leaf_index} for row in rows],
        "disclosures": list(found.disclosures),
        "damaged": list(found.damaged),
        "next": rows[-1].seq if len(rows) == limit else None,
    }


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    people("GET", "/v1/runs/{run}/decisions", run_decisions, EntryQuery, shapes_people.Evidence),
    people("GET", "/v1/ledger/decisions", tenant_decisions, EntryQuery, shapes_people.Evidence),
)
