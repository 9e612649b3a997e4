"""Revoke one grant by hand: the smallest kill switch."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import Forbidden, UnknownGrant
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.leases import transact_and_take_back
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_person,
    journal_for,
    scope_of,
)


async def revoke_grant(ports: Ports, person: PersonCaller, jti: str, request: Request) -> dict[str, Any]:
    """Revoke it; revoking again changes nothing. Raises `Forbidden`, `UnknownGrant`."""
    if "operator" not in person.roles:
        raise Forbidden("only an operator can revoke a grant")
    scope = scope_of(person.tenant, person.id, "revoke", jti, None, request.idempotency_key)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        grant = loaded.view.grants.get(jti)
        if loaded.view.run is None or grant is None:
            raise UnknownGrant("no such grant")
        journal = journal_for(ports, loaded, by_person(person))
        revoke(journal, grant, "operator")
        answer = answers.grant(journal.view.grants[jti], journal.view.steps.get(grant.step))
        return Change(answer, journal, stored=answer)

    return await transact_and_take_back(ports, Query(person.tenant, grant=jti, answer=scope), work, request=request)
