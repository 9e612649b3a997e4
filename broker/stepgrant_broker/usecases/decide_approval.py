"""A person answers an approval: the shown digest is echoed, and the name is the token's, never the body's."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import approvals
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import InvalidRequest, UnknownApproval
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_person,
    journal_for,
    scope_of,
    transact,
)

NOTE_MAX = 2000


async def decide_approval(
    ports: Ports,
    person: PersonCaller,
    approval_id: str,
    *,
    verdict: str,
    digest: str,
    note: str | None,
    request: Request,
) -> dict[str, Any]:
    """Record the answer. Raises the errors of `approvals.refuse_bad_answer`, `UnknownApproval`."""
    if note is not None and len(note) > NOTE_MAX:
        raise InvalidRequest(f"a note has at most {NOTE_MAX} characters", field="note")
    scope = scope_of(person.tenant, person.id, "decide", approval_id, None, request.idempotency_key)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        approval = loaded.view.approvals.get(approval_id)
        if loaded.view.run is None or approval is None:
            raise UnknownApproval("no such approval")
        journal = journal_for(ports, loaded, by_person(person))
        done = approvals.decide(journal, approval, person, verdict=verdict, digest=digest, note=note)
        answer = answers.approval(done)
        return Change(answer, journal, stored=answer)

    query = Query(person.tenant, approval=approval_id, answer=scope)
    return await transact(ports, query, work, request=request)
