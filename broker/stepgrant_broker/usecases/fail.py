"""Fail a step: `not_executed`, `failed`, or `unknown`, which for a `once` step is doubt."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call


async def fail(
    ports: Ports,
    caller: AgentCaller,
    run: str,
    step: str,
    epoch: int,
    attempt: int,
    *,
    status: FailStatus,
    error: str | None,
    request: Request,
) -> dict[str, Any]:
    """Record the failure. Raises `UnknownStep`, `StaleEpoch`, `StepInDoubt`, `InvalidRequest`."""

    def act(journal: Journal, _: Loaded) -> dict[str, Any]:
        failed = outcomes.fail(journal, step, attempt, status, error)
        answer: dict[str, Any] = {"step": step, "attempt": failed.attempt, "state": failed.state.value}
        if failed.doubt is not None:
            answer["in_doubt"] = answers.doubtful(failed)
        return answer

    query = Query(caller.tenant, run=run, step=step)
    return await holder_call(ports, caller, query, epoch, request, call="fail", act=act)
