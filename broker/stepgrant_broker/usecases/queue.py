"""Queue a run: it is opened with its input and parked at once, for whoever comes to run it.

Rules:
* To queue is to open: the same policy is asked, and a refusal is recorded in the same place.
* Open and park are one commit, so that no lease has to lapse before somebody else can begin.
* A run that is there is left as it is, whoever holds it and whatever it waits for: queueing twice is harmless.
"""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.holding import refuse_quarantined, refuse_stopped
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.standing import QUEUED
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports, present
from stepgrant_broker.usecases.open import OpenCall, open_new, refuse_bad_call
from stepgrant_broker.usecases.transact import Change, Repeat, answered_before, scope_of, transact


async def queue_run(ports: Ports, caller: AgentCaller, call: OpenCall, request: Request) -> dict[str, Any]:
    """Queue. Raises `PolicyDenied`, `RunEnded`, `Quarantined`, `DuplicateRequest` (another input), `Forbidden`."""
    refuse_bad_call(call, caller, ports.limits.max_input_bytes)
    target = f"{call.agent}/{call.run_key}"
    scope = scope_of(caller.tenant, caller.jkt, "queue", target, None, request.idempotency_key)
    query = Query(caller.tenant, run_key=(call.agent, call.run_key), answer=scope)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        runs.refuse_stale_attestation(caller, loaded.now, ports.limits)
        refuse_quarantined(loaded.quarantines, loaded.now, agent=call.agent, workload=caller.workload)
        run = loaded.view.run
        if run is None:
            return await open_new(ports, caller, call, loaded, _parked)
        refuse_stopped(run)
        if call.input_bytes is not None:
            runs.refuse_other_input(run, _input_c(ports, loaded, call.input_bytes))
        return Repeat(_answer(run, queued=False))

    return await transact(ports, query, work, proof=caller.proof, request=request)


def _parked(_: Ports, journal: Journal, loaded: Loaded, __: OpenCall) -> tuple[dict[str, Any], int]:
    runs.park(journal, QUEUED)
    return _answer(journal.run, queued=True), loaded.now


def _input_c(ports: Ports, loaded: Loaded, data: bytes) -> str:
    return ports.committer(present(loaded.key)).digest("run.input", data)


def _answer(run: Run, *, queued: bool) -> dict[str, Any]:
    return {"run": run.id, "run_key": run.key, "agent": run.agent, "state": run.state.value, "queued": queued}
