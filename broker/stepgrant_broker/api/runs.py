"""Runs: open, queue, heartbeat, park, end. A person can only cancel, and erase what has ended."""

from __future__ import annotations

from typing import Any, Final

from stepgrant import _wire
from stepgrant_broker.api import parsing, shapes_runs
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.routing import Call, Endpoint, Nothing, agents, either, people
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.usecases.end import Status, cancel_by_person, end
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.open import open_run
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.queue import queue_run

Answer = dict[str, Any]


async def open_(api: Api, call: Call[AgentCaller, _wire.OpenRun]) -> Answer:
    """Open a run; for an unfinished run of this agent and key: resume it."""
    limits = api.ports.limits
    wanted = parsing.open_call(call.taken, jkt=call.caller.jkt, idempotency_key=call.key, limits=limits)
    return await open_run(api.ports, call.caller, wanted, call.request())


async def queue_(api: Api, call: Call[AgentCaller, _wire.QueueRun]) -> Answer:
    """Store a run with its input, for whoever comes to run it; one that is there is left as it is."""
    limits = api.ports.limits
    wanted = parsing.open_call(call.taken, jkt=call.caller.jkt, idempotency_key=call.key, limits=limits)
    return await queue_run(api.ports, call.caller, wanted, call.request())


async def heartbeat_(api: Api, call: Call[AgentCaller, _wire.Holding]) -> Answer:
    """Extend the lease, or learn that the caller is fenced."""
    return await heartbeat(api.ports, call.caller, call.segment("run"), call.taken.epoch, call.request())


async def park_(api: Api, call: Call[AgentCaller, _wire.ParkRun]) -> Answer:
    """Park the run; what it holds is revoked."""
    taken = call.taken
    run, request = call.segment("run"), call.request()
    return await park(api.ports, call.caller, run, taken.epoch, taken.reason, request, taken.detail)


async def complete_run(api: Api, call: Call[AgentCaller, _wire.EndRun]) -> Answer:
    """Complete the run; this is final."""
    return await _end(api, call, call.caller, "completed")


async def fail_run(api: Api, call: Call[AgentCaller, _wire.EndRun]) -> Answer:
    """Fail the run; this is final."""
    return await _end(api, call, call.caller, "failed")


async def cancel_run(api: Api, call: Call[AgentCaller | PersonCaller, _wire.EndRun]) -> Answer:
    """Cancel the run, by its holder or by an operator; this is final."""
    if isinstance(call.caller, AgentCaller):
        return await _end(api, call, call.caller, "cancelled")
    for name in ("epoch", "result"):
        if name in call.raw:
            raise InvalidRequest("a person sends neither epoch nor result", field=name)
    return await cancel_by_person(api.ports, call.caller, call.segment("run"), call.request())


async def erase_(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Destroy the run's key, payloads and stored answers; entries stay and verify. This is final."""
    return await erase_run(api.ports, call.caller, call.segment("run"))


async def _end(api: Api, call: Call[Any, _wire.EndRun], caller: AgentCaller, status: Status) -> Answer:
    taken = call.taken
    if taken.epoch is None:
        raise InvalidRequest("every call of a holder carries its epoch", field="epoch")
    result = parsing.result(taken.result)
    return await end(api.ports, caller, call.segment("run"), taken.epoch, status, result, call.request())


HOT: Final[tuple[Endpoint, ...]] = (
    agents("POST", "/v1/runs/{run}/heartbeat", heartbeat_, _wire.Holding, shapes_runs.Held),
)  # fmt: skip
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    agents("POST", "/v1/runs", open_, _wire.OpenRun, shapes_runs.OpenedRun),
    agents("POST", "/v1/runs/queue", queue_, _wire.QueueRun, shapes_runs.QueuedRun),
    agents("POST", "/v1/runs/{run}/park", park_, _wire.ParkRun, shapes_runs.Parked),
    agents("POST", "/v1/runs/{run}/complete", complete_run, _wire.EndRun, shapes_runs.EndedRun),
    agents("POST", "/v1/runs/{run}/fail", fail_run, _wire.EndRun, shapes_runs.EndedRun),
    either("POST", "/v1/runs/{run}/cancel", cancel_run, _wire.EndRun, shapes_runs.EndedRun),
    people("POST", "/v1/runs/{run}/erase", erase_, Nothing, shapes_runs.ErasedRun),
)
