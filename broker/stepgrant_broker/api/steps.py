"""Steps: prepare, start, begin, record, and what became of them. A person can only settle what nobody else knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from stepgrant import _wire
from stepgrant_broker.api import parsing, shapes
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.routing import Call, Endpoint, agents, either, people
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.calls import StepCall
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.outcomes import Verdict
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.decide_duplicate import decide_duplicate
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.reconcile import reconcile, reconcile_by_person
from stepgrant_broker.usecases.record import record
from stepgrant_broker.usecases.start import start
from stepgrant_broker.usecases.suspend import suspend

STEP: Final = "/v1/runs/{run}/steps/{step}"
ERROR_MAX: Final = 2000
Answer = dict[str, Any]
StepBody = Call[AgentCaller, _wire.StepCall]
Verb = Callable[[Ports, AgentCaller, str, StepCall, Request], Awaitable[Answer]]


def begin_(api: Api, call: StepBody) -> Awaitable[Answer]:
    """Prepare and start in one call: decide, and mint if policy allows it."""
    return _step(api, call, "begin", begin)


def start_(api: Api, call: StepBody) -> Awaitable[Answer]:
    """Decide again for a prepared step, and mint if policy allows it."""
    return _step(api, call, "start", start)


def prepare_(api: Api, call: StepBody) -> Awaitable[Answer]:
    """Record the step and ask policy; mints nothing."""
    return _step(api, call, "prepare", prepare)


async def _step(api: Api, call: StepBody, name: str, verb: Verb) -> Answer:
    wanted = parsing.step_call(call.segment("step"), call.taken, api.ports.limits)
    answer = await verb(api.ports, call.caller, call.segment("run"), wanted, call.request())
    api.metrics.outcome(name, answer["outcome"])
    return answer


async def record_(api: Api, call: Call[AgentCaller, _wire.RecordStep]) -> Answer:
    """Record a step without a credential, or get back what was recorded before."""
    wanted = parsing.record_call(call.segment("step"), call.taken, api.ports.limits)
    return await record(api.ports, call.caller, call.segment("run"), wanted, call.request())


async def complete_(api: Api, call: Call[AgentCaller, _wire.CompleteStep]) -> Answer:
    """Record the step's result; it is never done again."""
    run, step, taken = call.segment("run"), call.segment("step"), call.taken
    result = parsing.result(taken.result, withheld=taken.withheld)
    return await complete(api.ports, call.caller, run, step, taken.epoch, taken.attempt, result, call.request())


async def fail_(api: Api, call: Call[AgentCaller, _wire.FailStep]) -> Answer:
    """Record that the step failed, or that nobody knows."""
    taken = call.taken
    if taken.error is not None and len(taken.error) > ERROR_MAX:
        raise InvalidRequest(f"error has at most {ERROR_MAX} characters", field="error")
    return await fail(
        api.ports,
        call.caller,
        call.segment("run"),
        call.segment("step"),
        taken.epoch,
        taken.attempt,
        status=FailStatus(taken.outcome),
        error=taken.error,
        request=call.request(),
    )


async def suspend_(api: Api, call: Call[AgentCaller, _wire.SuspendStep]) -> Answer:
    """Control flow left the tool: its grant is revoked, the step is decided again later."""
    run, step, taken = call.segment("run"), call.segment("step"), call.taken
    return await suspend(api.ports, call.caller, run, step, taken.epoch, taken.attempt, call.request())


async def reconcile_(api: Api, call: Call[AgentCaller | PersonCaller, _wire.ReconcileStep]) -> Answer:
    """Settle a doubt, by the step's hook or by a person."""
    run, step, taken = call.segment("run"), call.segment("step"), call.taken
    parsing.short(taken.via, "via", parsing.KEY_MAX)
    if taken.evidence is not None and len(taken.evidence) > ERROR_MAX:
        raise InvalidRequest(f"evidence has at most {ERROR_MAX} characters", field="evidence")
    said = Verdict(taken.attempt, taken.verdict, parsing.result(taken.result), taken.evidence, taken.via)
    if isinstance(call.caller, PersonCaller):
        if taken.epoch is not None:
            raise InvalidRequest("a person holds no epoch", field="epoch")
        return await reconcile_by_person(api.ports, call.caller, run, step, said, call.request())
    if taken.epoch is None:
        raise InvalidRequest("every call of a holder carries its epoch", field="epoch")
    return await reconcile(api.ports, call.caller, run, step, taken.epoch, said, call.request())


async def duplicate_(api: Api, call: Call[PersonCaller, _wire.DecideDuplicate]) -> Answer:
    """Say whether a call is a completed step once more, or another call. Only people know."""
    run, step, taken = call.segment("run"), call.segment("step"), call.taken
    if taken.note is not None and len(taken.note) > ERROR_MAX:
        raise InvalidRequest(f"note has at most {ERROR_MAX} characters", field="note")
    request = call.request()
    return await decide_duplicate(
        api.ports, call.caller, run, step, verdict=taken.verdict, note=taken.note, request=request
    )


HOT: Final[tuple[Endpoint, ...]] = (
    agents("POST", STEP + "/begin", begin_, _wire.StepCall, shapes.Outcome),
    agents("POST", STEP + "/complete", complete_, _wire.CompleteStep, shapes.StepReport),
    agents("POST", STEP + "/record", record_, _wire.RecordStep, shapes.RecordOutcome),
    agents("POST", STEP + "/prepare", prepare_, _wire.StepCall, shapes.Outcome),
    agents("POST", STEP + "/start", start_, _wire.StepCall, shapes.Outcome),
)
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    agents("POST", STEP + "/fail", fail_, _wire.FailStep, shapes.StepReport),
    agents("POST", STEP + "/suspend", suspend_, _wire.SuspendStep, shapes.StepReport),
    either("POST", STEP + "/reconcile", reconcile_, _wire.ReconcileStep, shapes.Reconciled),
    people("POST", STEP + "/duplicate", duplicate_, _wire.DecideDuplicate, shapes.DuplicateDecided),
)
