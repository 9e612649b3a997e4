"""Every call of the agent's API as plain values: path, body, what a retry may add. No socket, no clock.

Rules:
* Arguments and results are canonical JSON bytes before they get here, so what is sent is what was checked.
* A call gets its Idempotency-Key when it is made and keeps it: sending the same `Call` again is a transport retry.
* `outcome`: the call tells how something ended, so it is worth a moment even when the agent is being stopped.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlencode

import msgspec

from stepgrant import _wire
from stepgrant._http1 import MAX_ANSWER_BYTES

MAX_RECORD_BYTES: Final = 67_108_864
"""A run's record has all its entries, arguments and results."""
_encode: Final = msgspec.json.Encoder().encode
ParkReason = Literal["awaiting_approval", "in_doubt", "suspended", "requested", "error", "set_aside"]
FailOutcome = Literal["not_executed", "failed", "unknown"]
EndVerb = Literal["complete", "fail", "cancel"]


def _new_key() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `again`: the body when the first reply was lost, where it differs. `what` names it in messages.

    `most`: how many bytes its answer may have. `told`: each try that fails is worth a warning.
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes
    what: str
    again: bytes | None = None
    outcome: bool = False
    most: int = MAX_ANSWER_BYTES
    told: bool = True
    idempotency_key: str = field(default_factory=_new_key)

    def __repr__(self) -> str:
        """Without the body, which holds arguments and results."""
        return f"Call({self.what}: {self.method} {self.path})"


@dataclass(frozen=True, slots=True)
class Action:
    """What a step is about to do. `args` are canonical bytes; the rest is the tool's declaration."""

    tool: str
    args: bytes
    effect: _wire.Effect
    resource: str | None = None
    idempotency_key: str | None = None
    settle_s: float = 0
    retry_failed: bool = False


def _raw(data: bytes | None) -> Any:  # noqa: ANN401  # msgspec's members are Any
    return msgspec.UNSET if data is None else msgspec.Raw(data)


def open_run(
    *,
    agent: str,
    run_key: str | None,
    version: str | None,
    run_input: bytes | None,
    labels: Mapping[str, str],
    principal: str | None,
    takeover: bool,
    resume: bool = False,
) -> Call:
    """`POST /v1/runs`. `resume`: no new run is opened."""
    body = _wire.OpenRun(
        agent=agent,
        run_key=run_key,
        version=version,
        input=_raw(run_input),
        labels=dict(labels),
        principal=principal,
        takeover=takeover,
        resume=resume,
    )
    return Call("POST", "/v1/runs", _encode(body), "open")


def queue_run(
    *,
    agent: str,
    run_key: str | None,
    version: str | None,
    run_input: bytes | None,
    labels: Mapping[str, str],
    principal: str | None,
) -> Call:
    """`POST /v1/runs/queue`."""
    body = _wire.QueueRun(
        agent=agent, run_key=run_key, version=version, input=_raw(run_input), labels=dict(labels), principal=principal
    )
    return Call("POST", "/v1/runs/queue", _encode(body), "queue")


def resumable_runs(agent: str, *, limit: int, after: str | None) -> Call:
    """`GET /v1/runs`: those of this agent that somebody should go on with, oldest first."""
    query = {"resumable": "true", "agent": agent, "limit": str(limit)} | ({"after": after} if after is not None else {})
    return Call("GET", f"/v1/runs?{urlencode(query)}", b"", "list runs")


def own_runs(agent: str, *, limit: int, after: str | None) -> Call:
    """`GET /v1/runs`: those of this agent that this workload held last, newest first."""
    query = {"agent": agent, "limit": str(limit)} | ({"after": after} if after is not None else {})
    return Call("GET", f"/v1/runs?{urlencode(query)}", b"", "list runs")


def receipt(run: str) -> Call:
    """`GET /v1/runs/{run}/receipt`: entries, and the values behind them."""
    return Call("GET", f"/v1/runs/{run}/receipt", b"", "read the run's record", most=MAX_RECORD_BYTES)


def show_run(run: str) -> Call:
    """`GET /v1/runs/{run}`."""
    return Call("GET", f"/v1/runs/{run}", b"", "look up the run")


def _step(run: str, key: str, verb: str) -> str:
    return f"/v1/runs/{run}/steps/{key}/{verb}"


def _step_call(epoch: int, action: Action, id_source: _wire.IdSource, csr: str | None = None) -> _wire.StepCall:
    return _wire.StepCall(
        epoch=epoch,
        action=_wire.Action(tool=action.tool, resource=action.resource, args=_raw(action.args)),
        effect=action.effect,
        id_source=id_source,
        idempotency_key=action.idempotency_key,
        settle_s=action.settle_s,
        retry_failed=action.retry_failed,
        csr=csr,
    )


def begin(run: str, key: str, epoch: int, action: Action, id_source: _wire.IdSource, *, csr: str | None = None) -> Call:
    """`POST …/begin`. A retry states that no tool ever saw the credential of the lost reply, which is so."""
    body = _step_call(epoch, action, id_source, csr)
    again = msgspec.structs.replace(body, not_received=True)
    return Call("POST", _step(run, key, "begin"), _encode(body), f"begin step {key}", again=_encode(again))


def prepare(run: str, key: str, epoch: int, action: Action, id_source: _wire.IdSource) -> Call:
    """`POST …/prepare`."""
    body = _encode(_step_call(epoch, action, id_source))
    return Call("POST", _step(run, key, "prepare"), body, f"prepare step {key}")


def record(
    run: str,
    key: str,
    epoch: int,
    *,
    name: str,
    args: bytes,
    result: bytes | None,
    withheld: bool,
    source: _wire.IdSource,
) -> Call:
    """`POST …/record`. Of a step that is known already only name and arguments are compared."""
    body = _wire.RecordStep(
        epoch=epoch, name=name, args=_raw(args), result=_raw(result), withheld=withheld, id_source=source
    )
    return Call("POST", _step(run, key, "record"), _encode(body), f"record step {key}", outcome=result is not None)


def show_step(run: str, key: str) -> Call:
    """`GET …/steps/{key}`."""
    return Call("GET", f"/v1/runs/{run}/steps/{key}", b"", f"look up step {key}")


def complete(run: str, key: str, epoch: int, attempt: int, *, result: bytes | None, withheld: bool = False) -> Call:
    """`POST …/complete`."""
    body = _wire.CompleteStep(epoch=epoch, attempt=attempt, result=_raw(result), withheld=withheld)
    return Call("POST", _step(run, key, "complete"), _encode(body), f"complete step {key}", outcome=True)


def fail(run: str, key: str, epoch: int, attempt: int, *, outcome: FailOutcome, error: str) -> Call:
    """`POST …/fail`."""
    body = _wire.FailStep(epoch=epoch, attempt=attempt, outcome=outcome, error=error)
    return Call("POST", _step(run, key, "fail"), _encode(body), f"fail step {key}", outcome=True)


def suspend(run: str, key: str, epoch: int, attempt: int) -> Call:
    """`POST …/suspend`."""
    body = _wire.SuspendStep(epoch=epoch, attempt=attempt)
    return Call("POST", _step(run, key, "suspend"), _encode(body), f"suspend step {key}", outcome=True)


def reconcile(
    run: str, key: str, epoch: int, attempt: int, *, verdict: str, result: bytes | None, evidence: str | None, via: str
) -> Call:
    """`POST …/reconcile`, by a hook whose own step is `via`."""
    body = _wire.ReconcileStep(
        attempt=attempt, verdict=_verdict(verdict), epoch=epoch, result=_raw(result), evidence=evidence, via=via
    )
    return Call("POST", _step(run, key, "reconcile"), _encode(body), f"reconcile step {key}")


def _verdict(text: str) -> Literal["done", "not_done", "unknown"]:
    return "done" if text == "done" else "not_done" if text == "not_done" else "unknown"


def heartbeat(run: str, epoch: int) -> Call:
    """`POST …/heartbeat`."""
    body = _encode(_wire.Holding(epoch=epoch))
    return Call("POST", f"/v1/runs/{run}/heartbeat", body, "heartbeat", told=False)


def park(run: str, epoch: int, reason: ParkReason, detail: str | None = None) -> Call:
    """`POST …/park`."""
    body = _wire.ParkRun(epoch=epoch, reason=reason, detail=detail)
    return Call("POST", f"/v1/runs/{run}/park", _encode(body), "park", outcome=True)


def end(run: str, epoch: int, verb: EndVerb, result: bytes | None) -> Call:
    """`POST /v1/runs/{run}/complete`, `…/fail`, `…/cancel`."""
    body = _encode(_wire.EndRun(epoch=epoch, result=_raw(result)))
    return Call("POST", f"/v1/runs/{run}/{verb}", body, f"{verb} run", outcome=True)
