"""Revoke one grant by hand: the smallest kill switch."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import UnknownGrant
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.tenant_call import require_operator
from stepgrant_broker.usecases.transact import Change


async def revoke_grant(ports: Ports, person: PersonCaller, jti: str, request: Request) -> dict[str, Any]:
    """Revoke it; revoking again changes nothing. Raises `Forbidden`, `UnknownGrant`."""
    require_operator(person, "revoke a grant")

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        grant = loaded.view.grants.get(jti)
        if loaded.view.run is None or grant is None:
            raise UnknownGrant("no such grant")
        journal = begin(loaded)
        revoke(journal, grant, "operator")
        answer = answers.grant(journal.view.grants[jti], journal.view.steps.get(grant.step))
        return Change(answer, journal)

    query = Query(person.tenant, grant=jti)
    return await person_call(ports, person, query, request, call="revoke", target=jti, act=act)
