"""Complete a step: its result is recorded, its grant revoked, and it is never done again."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call


async def complete(
    ports: Ports,
    caller: AgentCaller,
    run: str,
    step: str,
    epoch: int,
    attempt: int,
    result: outcomes.Result,
    request: Request,
) -> dict[str, Any]:
    """Record the outcome. Raises `UnknownStep`, `StepDrift`, `StepInDoubt`, `StaleEpoch`, `InvalidRequest`."""
    outcomes.refuse_large(result, ports.limits)

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        done = outcomes.complete(journal, step, attempt, result)
        return {"step": step, "attempt": done.attempt, "state": done.state.value}

    query = Query(caller.tenant, run=run, step=step)
    return await holder_call(ports, caller, query, epoch, request, call="complete", act=act)
