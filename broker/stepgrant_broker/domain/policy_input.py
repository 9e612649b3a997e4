"""The input document that policy decides on (`protocol.md` §5), built only from what is recorded or attested.

What the caller says of itself reaches policy under `claimed`, nowhere else. Times are Unix seconds, and the time of the
decision is in the input, so that the same input gives the same decision for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.approvals import usable_until
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.calls import Ask, StepCall
from stepgrant_broker.domain.deciding import counted_meters, meter_number
from stepgrant_broker.domain.decisions import Json
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Approval, History, Run, Step

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@lru_cache(maxsize=4)
def _time(second: int) -> dict[str, Any]:
    """Only to be encoded: all decisions of one second share it."""
    at = datetime.fromtimestamp(second, UTC)
    day, clock = f"{at.year:04}-{at.month:02}-{at.day:02}", f"{at.hour:02}:{at.minute:02}:{at.second:02}"
    return {
        "unix": second,
        "rfc3339": f"{day}T{clock}Z",
        "weekday": WEEKDAYS[at.weekday()],
        "hour": at.hour,
    }


def _history(history: History, own: Mapping[str, int]) -> dict[str, Any]:
    """`own` is what this step's earlier attempts count already: a retry does not spend its budget a second time."""
    spent = {name: micro - own.get(name, 0) for name, micro in history.meters.items()}
    return {
        "counts": {
            "tool": dict(history.tools), "effect": dict(history.effects), "outcome": dict(history.outcomes),
        },
        "labels": sorted(history.labels),
        "meters": {name: meter_number(micro) for name, micro in spent.items() if micro > 0},
        "tools": sorted(history.tools),
        "denials": history.denials,
        "in_flight": history.in_flight,
    }  # fmt: skip


def _caller(caller: AgentCaller, principal: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "tenant": caller.tenant,
        "identity": {
            "method": caller.method,
            "trust_domain": caller.trust_domain,
            "subject": caller.subject,
            "attributes": dict(caller.attributes),
            "attested_at": caller.attested_at // 1000,
        },
        "principal": principal,
    }


def _run(run: Run | None, *, key: str | None, resumed: bool, parked_ms: int) -> dict[str, Any]:
    return {
        "id": run.id if run else None,
        "key": run.key if run else key,
        "epoch": run.epoch if run else 0,
        "resumed": resumed,
        "opened_at": run.opened_at // 1000 if run else None,
        "parked_seconds": parked_ms // 1000,
        "step_count": run.step_count if run else 0,
    }


def _approval(approval: Approval | None) -> dict[str, Any] | None:
    if approval is None or approval.settled_at is None:
        return None
    until = usable_until(approval)
    return {
        "id": approval.id,
        "approvers": sorted(answer.operator for answer in approval.answers if answer.verdict == "approve"),
        "approved_at": approval.settled_at // 1000,
        "expires_at": (until or 0) // 1000,
        "revision": approval.revision,
    }


def _step(call: StepCall, ask: Ask) -> dict[str, Any]:
    step = {"key": call.step, "attempt": ask.attempt, "previous_outcome": ask.previous_outcome}
    return step if ask.equal_to is None else {**step, "equal_to": ask.equal_to}


def for_step(
    journal: Journal, caller: AgentCaller, call: StepCall, ask: Ask, approval: Approval | None, principal: str | None
) -> bytes:
    """The input for an action of a step, as JCS bytes."""
    run = journal.run
    step = journal.view.steps.get(call.step)
    document = {
        **_caller(caller, None),
        "agent": {"name": run.agent, "version": run.agent_version},
        "claimed": {"labels": dict(run.labels), "context": dict(call.context or {}), "principal": principal},
        "run": _run(run, key=None, resumed=run.epoch > 1, parked_ms=run.parked_ms),
        "step": _step(call, ask),
        "action": {
            "tool": call.tool,
            "resource": call.resource,
            "args": call.args if call.preimage is not None else None,
            "digest": call.digest,
            "effect": str(call.effect),
            "idempotency_key": step.idempotency_key if step is not None else call.idempotency_key,
        },
        "history": _history(run.history, counted_meters(journal, call.step)),
        "approval": _approval(approval),
        "requested": {"issuer": call.issuer, "ttl": call.ttl_s, "params": dict(call.params or {})},
        "time": _time(journal.now // 1000),
    }
    return canonical.dumps(document)


def again_for_step(
    recorded: Mapping[str, Any], journal: Journal, step: Step, ask: Ask, approval: Approval | None
) -> dict[str, Any]:
    """The input that this step would be decided on if it were begun now by the same workload, in the journal's run.

    `recorded` is the input that it was decided on last: what the caller says about itself and the action is as then.
    """
    run = journal.run
    asked = {"key": step.key, "attempt": ask.attempt, "previous_outcome": ask.previous_outcome}
    return {
        **_attested_now(recorded, journal.now),
        "run": _run(run, key=None, resumed=run.epoch > 1, parked_ms=run.parked_ms),
        "step": asked if ask.equal_to is None else {**asked, "equal_to": ask.equal_to},
        # A first call may name none; the step has one since, and whoever begins it again sends that.
        "action": {**recorded["action"], "idempotency_key": step.idempotency_key},
        "history": _history(run.history, counted_meters(journal, step.key)),
        "approval": _approval(approval),
    }


def again_for_resume(
    recorded: Mapping[str, Any], journal: Journal, tool: str, parked_ms: int, approval: Approval | None
) -> dict[str, Any]:
    """The input of a resume now by the workload of `recorded`, which is any input of the journal's run."""
    run = journal.run
    args = {"takeover": False, "same_subject": True, "lease_lapsed": True, "parked_seconds": parked_ms // 1000}
    return {
        **_attested_now(recorded, journal.now),
        "claimed": {**recorded["claimed"], "context": {}},
        "run": _run(run, key=None, resumed=True, parked_ms=parked_ms),
        "step": {"key": RESUME_STEP, "attempt": 1, "previous_outcome": None},
        "action": _run_action(tool, run, {**args, "agent": run.agent}),
        "history": _history(run.history, {}),
        "approval": _approval(approval),
        "requested": {"issuer": None, "ttl": None, "params": {}},
    }


def _attested_now(recorded: Mapping[str, Any], now: int) -> dict[str, Any]:
    identity = {**recorded["identity"], "attested_at": now // 1000}
    return {**recorded, "identity": identity, "time": dict(_time(now // 1000))}


def _run_action(tool: str, run: Run | None, args: Mapping[str, Json]) -> dict[str, Any]:
    resource = run.id if run else None
    return {
        "tool": tool,
        "resource": resource,
        "args": dict(args),
        "digest": canonical.action_digest(tool, resource, dict(args)),
        "effect": "once",
        "idempotency_key": None,
    }


def for_run(
    caller: AgentCaller,
    *,
    tool: str,
    step: str,
    agent: str,
    version: str | None,
    run: Run | None,
    run_key: str | None,
    args: Mapping[str, Json],
    labels: Mapping[str, str],
    principal: str | None,
    parked_ms: int,
    approval: Approval | None,
    now: int,
) -> bytes:
    """The input for opening, resuming or taking over a run, as JCS bytes."""
    document = {
        **_caller(caller, None),
        "agent": {"name": agent, "version": version},
        "claimed": {"labels": dict(labels), "context": {}, "principal": principal},
        "run": _run(run, key=run_key, resumed=run is not None, parked_ms=parked_ms),
        "step": {"key": step, "attempt": 1, "previous_outcome": None},
        "action": _run_action(tool, run, args),
        "history": _history(run.history if run is not None else History(), {}),
        "approval": _approval(approval),
        "requested": {"issuer": None, "ttl": None, "params": {}},
        "time": _time(now // 1000),
    }
    return canonical.dumps(document)
