"""The run's machine: open, resume, park, quarantine, release, end (`architecture.md` §4, `protocol.md` §4).

Opening and resuming are actions: policy is asked first (`usecases/open.py`), these functions write what it allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import (
    DuplicateRequest,
    InvalidRequest,
    InvalidToken,
    LeaseHeld,
    SetAside,
    StepInDoubt,
    WrongHolder,
)
from stepgrant_broker.domain.holding import refuse_stopped
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.releasing import give_up_all, release_all
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.standing import RESTORED, SET_ASIDE
from stepgrant_broker.domain.state import Run, RunState, StepState
from stepgrant_broker.domain.writes import Loaded

OPEN_TOOL: Final = "stepgrant.run.open"
RESUME_TOOL: Final = "stepgrant.run.resume"
TAKEOVER_TOOL: Final = "stepgrant.run.takeover"
SHOWN: Final = 3
"""So many steps in doubt an error names."""
RESTORE_JUMP: Final = 1_000_000
"""So many epochs a restore leaves out: no holder that the lost part made can ever equal one that comes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """How a caller wants to hold a known run."""

    tool: str
    same_subject: bool
    lease_lapsed: bool
    parked_ms: int


def refuse_stale_attestation(caller: AgentCaller, now: int, limits: Limits) -> None:
    """Opening and resuming need an exchange of at most a minute ago. Raises `InvalidToken`."""
    if now - caller.attested_at > limits.attestation_max_age_ms:
        raise InvalidToken("the token exchange is too old to open or resume a run; exchange again")


def is_set_aside(run: Run) -> bool:
    """Whether a worker gave the run up."""
    return run.state is RunState.PARKED and run.park_reason == SET_ASIDE


def refuse_set_aside(run: Run) -> None:
    """Raises `SetAside`: what failed at every try is not tried again before a person has looked."""
    if is_set_aside(run):
        raise SetAside(f"the run was set aside after {run.tries} tries without a result; an operator must release it")


def claim(loaded: Loaded, run: Run, caller: AgentCaller, subject_c: str, *, takeover: bool) -> Claim:
    """What this caller would have to be allowed.

    Raises `RunEnded`, `Quarantined`, `SetAside`, `LeaseHeld`, `WrongHolder`.
    """
    refuse_stopped(run)
    refuse_set_aside(run)
    lapsed = run.state is RunState.PARKED or loaded.lease_until <= loaded.now
    same = subject_c == run.subject_c
    if not lapsed and not takeover:
        wait = loaded.lease_until - loaded.now
        raise LeaseHeld(
            "another process holds the run; wait for its lease to lapse, or ask to take over",
            retry_after_ms=wait,
            epoch=run.epoch,
        )
    if caller.jkt in {epoch.jkt for epoch in loaded.view.epochs.values()}:
        # A resumed run must never be held by the key of its zombie.
        raise WrongHolder("this key has held the run before; resume with a fresh key")
    since = run.parked_at if run.parked_at is not None else min(loaded.lease_until, loaded.now)
    return Claim(
        tool=RESUME_TOOL if same and lapsed else TAKEOVER_TOOL,
        same_subject=same,
        lease_lapsed=lapsed,
        parked_ms=max(0, loaded.now - since),
    )


def refuse_other_input(run: Run, input_c: str | None) -> None:
    """A run key stands for one input. Raises `DuplicateRequest`."""
    if input_c is not None and input_c != run.input_c:
        raise DuplicateRequest("this run was opened with another input", field="input")


def _attestation(caller: AgentCaller) -> dict[str, Any]:
    return {"method": caller.method, "evidence": caller.evidence, "at": caller.attested_at}


def open_run(
    journal: Journal,
    caller: AgentCaller,
    *,
    run_key: str,
    agent: str,
    version: str | None,
    labels: Mapping[str, str],
    input_c: str | None,
    principal: tuple[str, str] | None,
    decision: Mapping[str, Any],
) -> None:
    """Write a new run under epoch 1."""
    body: dict[str, Any] = {
        "run_key": run_key,
        "workload": caller.workload.id,
        "labels": dict(labels),
        "attestation": _attestation(caller),
    }
    if input_c is not None:
        body["input_c"] = input_c
    if principal is not None:
        body["principal_method"] = principal[1]
    journal.add(
        EntryType.RUN_OPENED,
        epoch=1,
        agent={"name": agent, "jkt": caller.jkt, "version": version},
        decision=decision,
        principal_c=journal.commit.maybe("principal", principal[0] if principal else None),
        body=body,
    )


def resume_run(
    journal: Journal,
    caller: AgentCaller,
    held: Claim,
    *,
    version: str | None,
    decision: Mapping[str, Any],
    approval: str | None,
) -> None:
    """Fence the old holder, take back what it held, and hand the run over under the next epoch."""
    run = journal.run
    release_all(journal, "fenced")
    journal.add(
        EntryType.RUN_RESUMED,
        epoch=run.epoch + 1,
        agent={"name": run.agent, "jkt": caller.jkt, "version": version},
        decision=decision,
        approval={"id": approval} if approval else None,
        body={
            "workload": caller.workload.id,
            "kind": "resume" if held.tool == RESUME_TOOL else "takeover",
            "attestation": _attestation(caller),
            "lease_lapsed": held.lease_lapsed,
            "parked_ms": held.parked_ms,
        },
    )


def park(journal: Journal, reason: str, *, cause: str | None = None, detail: str | None = None) -> None:
    """Nobody holds the run any more; what it held is revoked. `detail` rests behind a commitment."""
    release_all(journal, cause or "parked")
    body = {"reason": reason}
    if detail is not None:
        body["detail_c"] = journal.commit.value("park.detail", detail)
    journal.add(EntryType.RUN_PARKED, body=body, cause=cause)


def quarantine(journal: Journal, reason: str) -> None:
    """The kill switch: `reason` says what was quarantined (run, agent, workload or issuer)."""
    if journal.run.state.ended or journal.run.state is RunState.QUARANTINED:
        return
    release_all(journal, "quarantined")
    journal.add(EntryType.RUN_QUARANTINED, body={"by": reason}, cause="quarantined")


def release(journal: Journal) -> None:
    """Lift a run's quarantine, or take it up again after it was set aside: it is parked. Raises `InvalidRequest`."""
    if journal.run.state is not RunState.QUARANTINED and not is_set_aside(journal.run):
        raise InvalidRequest("the run is neither quarantined nor set aside", field="run")
    journal.add(EntryType.RUN_RELEASED)


def restore(journal: Journal, origin: str) -> None:
    """The store was put back to an earlier state: what it does not know of may have happened (`releasing.give_up_all`).

    `origin`: the log's name from now on. The epoch jumps, answers of people are void, and the run is quarantined until
    somebody has looked. An ended run stays as it is.
    """
    run = journal.run
    if run.state.ended:
        return
    give_up_all(journal, RESTORED)
    body = {"from_epoch": run.epoch, "origin": origin}
    journal.add(EntryType.RUN_RESTORED, epoch=run.epoch + RESTORE_JUMP, cause=RESTORED, body=body)
    journal.add(EntryType.RUN_QUARANTINED, body={"by": RESTORED}, cause=RESTORED)


def end(journal: Journal, status: str, result_c: str | None) -> None:
    """End the run. A run with steps in doubt cannot be completed. Raises `StepInDoubt`."""
    release_all(journal, "run_ended")
    doubtful = sorted(key for key, step in journal.view.steps.items() if step.state is StepState.IN_DOUBT)
    if status == RunState.COMPLETED and doubtful:
        more = f" and {len(doubtful) - SHOWN} more" if len(doubtful) > SHOWN else ""
        named = ", ".join(doubtful[:SHOWN]) + more
        raise StepInDoubt(f"in doubt: {named}; settle that before the run is completed", steps=doubtful[:20])
    outcome: dict[str, Any] = {"status": status}
    if result_c is not None:
        outcome["result_c"] = result_c
    journal.add(EntryType.RUN_ENDED, outcome=outcome, body={"status": status})
