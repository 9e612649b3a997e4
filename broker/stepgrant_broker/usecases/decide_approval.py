"""A person answers an approval: the shown digest is echoed, and the name is the token's, never the body's."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import approvals
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import InvalidRequest, UnknownApproval
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.person_call import Begin, person_call
from stepgrant_broker.usecases.transact import Change

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

    async def act(loaded: Loaded, begin: Begin) -> Change[dict[str, Any]]:
        approval = loaded.view.approvals.get(approval_id)
        if loaded.view.run is None or approval is None:
            raise UnknownApproval("no such approval")
        journal = begin(loaded)
        done = approvals.decide(journal, approval, person, verdict=verdict, digest=digest, note=note)
        return Change(answers.approval(done), journal)

    query = Query(person.tenant, approval=approval_id)
    return await person_call(ports, person, query, request, call="decide", target=approval_id, act=act)
