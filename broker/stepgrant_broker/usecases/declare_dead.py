"""A person vouches for the death of a credential whose issuer can never confirm it."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import leasing
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import UnknownGrant
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.tenant_call import require_operator
from stepgrant_broker.usecases.transact import Change


async def declare_dead(ports: Ports, person: PersonCaller, jti: str, request: Request) -> dict[str, Any]:
    """Declare it dead; of one that is dead nothing is written. Its handle and lease are erased.

    Raises `Forbidden`, `UnknownGrant`, `InvalidRequest` where no confirmation is waited for, and `PriorCredentialLive`
    before its longest life is over (`domain.grants.over_at`).
    """
    require_operator(person, "declare a credential dead")

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        grant = loaded.view.grants.get(jti)
        if loaded.view.run is None or grant is None:
            raise UnknownGrant("no such grant")
        journal = begin(loaded)
        erased = leasing.declare_dead(journal, jti, ports.limits.leeway_ms)
        answer = answers.grant(journal.view.grants[jti], journal.view.steps.get(grant.step))
        return Change(answer, journal, erase=erased)

    query = Query(person.tenant, grant=jti)
    return await person_call(ports, person, query, request, call="declare_dead", target=jti, act=act)
