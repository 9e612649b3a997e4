"""Heartbeat: the lease goes on, or the caller learns that it is fenced, quarantined or at its end."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call


async def heartbeat(ports: Ports, caller: AgentCaller, run: str, epoch: int, request: Request) -> dict[str, Any]:
    """Extend the lease. The one change that writes no entry. Raises the errors of `require_holder`."""

    def act(journal: Journal, loaded: Loaded) -> dict[str, Any]:
        return {
            "run": journal.run.id,
            "epoch": journal.run.epoch,
            "state": journal.run.state.value,
            "lease_until": loaded.now + ports.limits.lease_ms,
        }

    query = Query(caller.tenant, run=run)
    return await holder_call(ports, caller, query, epoch, request, call="heartbeat", act=act, keep=False)
