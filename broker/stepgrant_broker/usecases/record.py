"""Record a step without a credential (a model call, a plan, a clock reading), or get back what was recorded before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.errors import BudgetExhausted
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.holder_call import holder_call


@dataclass(frozen=True, slots=True)
class RecordCall:
    """The body of record. `preimage` are the JCS bytes of the named call and its arguments."""

    step: str
    epoch: int
    name: str
    preimage: bytes
    id_source: IdSource
    result: outcomes.Result


async def record(ports: Ports, caller: AgentCaller, run: str, call: RecordCall, request: Request) -> dict[str, Any]:
    """`recorded`, or `replay` with the result of before. Raises `StepDrift`, `InvalidRequest`, `BudgetExhausted`."""
    outcomes.refuse_large(call.result, ports.limits)

    def act(journal: Journal, loaded: Loaded) -> dict[str, Any]:
        if call.step not in journal.view.steps and journal.run.step_count >= ports.limits.max_steps:
            raise BudgetExhausted(f"a run has at most {ports.limits.max_steps} steps")
        step, known = outcomes.record(
            journal,
            call.step,
            name=call.name,
            digest_preimage=call.preimage,
            id_source=call.id_source,
            result=call.result,
        )
        if known:
            return answers.replayed(step, loaded.payloads)
        return {"outcome": "recorded", "step": step.key, "attempt": step.attempt}

    query = Query(caller.tenant, run=run, step=call.step)
    return await holder_call(ports, caller, query, call.epoch, request, call="record", act=act)
