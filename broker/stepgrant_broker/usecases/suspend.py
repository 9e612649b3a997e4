"""Suspend a step: framework control flow left the tool; its grant is revoked and it is decided again later."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call


async def suspend(
    ports: Ports, caller: AgentCaller, run: str, step: str, epoch: int, attempt: int, request: Request
) -> dict[str, Any]:
    """Record the suspension. Raises `UnknownStep`, `StaleEpoch`, `StepInDoubt`, `InvalidRequest`."""

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        left = outcomes.suspend(journal, step, attempt)
        return {"step": step, "attempt": left.attempt, "state": left.state.value}

    query = Query(caller.tenant, run=run, step=step)
    return await holder_call(ports, caller, query, epoch, request, call="suspend", act=act)
