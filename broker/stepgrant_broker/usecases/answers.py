"""The shapes of answers on the wire (`protocol.md` §2): plain JSON values, times in Unix milliseconds.

A credential is added only after the commit and is never part of a stored answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.calls import Doubtful, Ready, Refusal, Replayed, Settled, Suspected, Waiting
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.lost_ids import is_suspected
from stepgrant_broker.domain.ports import Minted
from stepgrant_broker.domain.standing import Standing, is_resumable, resumable_at
from stepgrant_broker.domain.state import Approval, Grant, Run, Step, StepState


def revealed(payloads: Mapping[str, Payload], c: str | None) -> Any:  # noqa: ANN401 - any JSON value
    """The value behind a commitment, or `None` when there is none or it was erased."""
    payload = payloads.get(c or "")
    return None if payload is None else canonical.loads(payload.body)


def committed(payloads: Mapping[str, Payload], c: str) -> Any:  # noqa: ANN401 - any JSON value
    """The committed value itself: of what is kept as a preimage its digest. `None` where nothing is left."""
    payload = payloads.get(c)
    return None if payload is None else canonical.loads(payload.value())


def grant(value: Grant, step: Step | None) -> dict[str, Any]:
    """A grant as its holder and people see it: no secret is in it."""
    return {
        "jti": value.jti,
        "run": value.run,
        "step": value.step,
        "attempt": value.attempt,
        "epoch": value.epoch,
        "issuer": value.issuer,
        "revocation": str(value.revocation),
        "tool": value.tool,
        "effect": str(value.effect),
        "redeem": str(value.redeem),
        "audience": value.audience,
        "status": str(value.status),
        "issued_at": value.issued_at,
        "expires_at": value.exp,
        "redeemed_at": value.redeemed_at,
        "act_before": value.act_before,
        "revoked_at": value.revoked_at,
        "cause": value.cause,
        "approval": value.approval,
        "labels": list(value.labels),
        "idempotency_key": step.idempotency_key if step is not None else None,
    }


def credential(minted: Minted, value: Grant, run: str) -> dict[str, Any]:
    """The credential itself, on its one way out."""
    return {
        "kind": minted.kind,
        "fields": dict(minted.fields),
        "hosts": list(minted.hosts),
        "expires_at": minted.expires_at,
        "revocation": str(value.revocation),
        "run": run,
    }


def replayed(step: Step, payloads: Mapping[str, Payload]) -> dict[str, Any]:
    """The recorded outcome of a step."""
    answer: dict[str, Any] = {"outcome": "replay", "step": step.key, "attempt": step.attempt, "state": step.state.value}
    if step.state is StepState.FAILED:
        status = step.fail_status.value if step.fail_status is not None else None
        return {**answer, "failure": {"status": status, "error": revealed(payloads, step.error_c)}}
    return {**answer, "result": revealed(payloads, step.result_c), "withheld": step.withheld}


def waiting(approval: Approval) -> dict[str, Any]:
    """A person must answer first."""
    return {
        "outcome": "approval_required",
        "approval_id": approval.id,
        "answer_by": approval.answer_by,
        "groups": list(approval.groups),
        "reasons": list(approval.reasons),
        "why_again": approval.why_again,
    }


def doubtful(step: Step) -> dict[str, Any]:
    """A step in doubt, with who may settle it."""
    options = ["reconcile", "person"] if step.effect is Effect.ONCE else ["reconcile"]
    return {
        "outcome": "in_doubt",
        "step": step.key,
        "tool": step.tool,
        "attempt": step.attempt,
        "why": step.doubt,
        "since": step.doubt_since,
        "reconciles": step.reconciles,
        "idempotency_key": step.idempotency_key,
        "options": options,
    }


def settled(value: Settled, payloads: Mapping[str, Payload]) -> dict[str, Any]:
    """The answer to prepare, start and begin, without a credential."""
    match value:
        case Ready(step, granted):
            answer: dict[str, Any] = {"outcome": "run", "step": step.key, "attempt": step.attempt}
            if granted is not None:
                answer["grant"] = grant(granted, step)
            return answer
        case Replayed(step):
            return replayed(step, payloads)
        case Refusal(reasons, decision_id):
            return {"outcome": "denied", "reasons": list(reasons), "decision_id": decision_id}
        case Waiting(approval):
            return waiting(approval)
        case Doubtful(step, blocked):
            return {**doubtful(step), "blocked": True} if blocked else doubtful(step)
        case Suspected(step, of):
            return {"outcome": "suspected_duplicate", "step": step.key, "of": of, "options": ["replay", "run"]}


def run(known: Standing) -> dict[str, Any]:
    """A run as it is listed and shown."""
    value = known.run
    return {
        "id": value.id,
        "key": value.key,
        "agent": value.agent,
        "version": value.agent_version,
        "state": value.state.value,
        "epoch": value.epoch,
        "workload": value.workload,
        "opened_at": value.opened_at,
        "ended_at": value.ended_at,
        "parked_at": value.parked_at,
        "park_reason": value.park_reason,
        "lease_until": known.lease_until,
        "labels": dict(value.labels),
        "steps": value.step_count,
        "entries": value.seq,
        "head": value.head,
        "denials": value.history.denials,
        "meters": {name: micro / 1_000_000 for name, micro in value.history.meters.items()},
        "carries": sorted(value.history.labels),
        "resumable": is_resumable(known),
        "resumable_at": resumable_at(known),
        "tries": value.tries,
        "erased_at": value.erased_at,
    }


def step(value: Step, payloads: Mapping[str, Payload], of: Run) -> dict[str, Any]:
    """A step as it is shown to its run's holder and to people; of an erased run, no value is left to be shown."""
    return {
        "key": value.key,
        "recorded": value.recorded,
        "tool": value.tool,
        "resource": revealed(payloads, value.resource_c),
        "effect": value.effect.value,
        "state": value.state.value,
        "attempt": value.attempt,
        "epoch": value.epoch,
        "position": value.position,
        "parent": value.parent,
        "idempotency_key": value.idempotency_key,
        "grant": value.grant,
        "approval": value.approval,
        "result": revealed(payloads, value.result_c),
        "withheld": value.withheld,
        "failure": value.fail_status.value if value.fail_status is not None else None,
        "error": revealed(payloads, value.error_c),
        "doubt": value.doubt,
        "doubt_since": value.doubt_since,
        "reconciles": value.reconciles,
        "same_as": value.same_as,
        "duplicate_of": value.duplicate_of,
        "suspected": is_suspected(value),
        "erased": of.erased_at is not None,
    }


def approval(value: Approval) -> dict[str, Any]:
    """An approval as it is listed."""
    return {
        "id": value.id,
        "run": value.run,
        "step": value.step,
        "tool": value.tool,
        "effect": value.effect.value,
        "issuer": value.issuer,
        "status": value.status.value,
        "groups": list(value.groups),
        "quorum": value.quorum,
        "requested_at": value.requested_at,
        "answer_by": value.answer_by,
        "valid_for_ms": value.valid_for_ms,
        "reasons": list(value.reasons),
        "revision": value.revision,
        "why_again": value.why_again,
        "settled_at": value.settled_at,
        "consumed_by": value.consumed_by,
        "answers": [{"operator": a.operator, "verdict": a.verdict, "at": a.at} for a in value.answers],
    }
