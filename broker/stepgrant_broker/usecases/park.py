"""Park a run: what it holds is revoked, and nobody holds it until it is resumed."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.standing import AWAITING_APPROVAL, IN_DOUBT, SET_ASIDE, SUSPENDED
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call

REASONS = frozenset({AWAITING_APPROVAL, IN_DOUBT, SUSPENDED, SET_ASIDE, "requested", "error"})
DETAIL_MAX = 500


async def park(
    ports: Ports,
    caller: AgentCaller,
    run: str,
    epoch: int,
    reason: str,
    request: Request,
    detail: str | None = None,
) -> dict[str, Any]:
    """Park. Raises `InvalidRequest` for an unknown reason or a long detail, and the errors of `require_holder`."""
    if reason not in REASONS:
        raise InvalidRequest(f"reason is one of {', '.join(sorted(REASONS))}", field="reason")

    if detail is not None and not 1 <= len(detail) <= DETAIL_MAX:
        raise InvalidRequest(f"detail is 1 to {DETAIL_MAX} characters", field="detail")

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        runs.park(journal, reason, detail=detail)
        return {"run": journal.run.id, "state": journal.run.state.value, "epoch": journal.run.epoch}

    query = Query(caller.tenant, run=run, unfinished=True)
    return await holder_call(ports, caller, query, epoch, request, call="park", act=act)
