"""How a step ends: completed, failed, suspended, recorded, reconciled.

Rules:
* Only the current holder reports, and only on the attempt that its own epoch started: a late report from an older
  epoch never settles anything (its holder is refused before this).
* "The tool raised" is not "it did not happen": `unknown` for a `once` step is doubt, unless provably unused.
* A `not_done` is only true when nothing can still happen: the look began after the old credential was dead and the
  tool's settle time had passed. A static key is never provably dead, so there a person must say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import (
    InvalidRequest,
    PriorCredentialLive,
    StaleEpoch,
    StepDrift,
    StepInDoubt,
    TooLarge,
    UnknownStep,
)
from stepgrant_broker.domain.grants import dead_at, provably_unused
from stepgrant_broker.domain.ids import default_idempotency_key, parent_of
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.releasing import doubt, revoke
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import IN_FLIGHT, FailStatus, IdSource, Step, StepState
from stepgrant_broker.domain.steps import refuse_bad_key, replay

VERDICTS = frozenset({"done", "not_done", "unknown"})


@dataclass(frozen=True, slots=True)
class Result:
    """A step's result: its JCS bytes, or only that it was withheld (it contained a live secret)."""

    body: bytes | None
    withheld: bool = False


def known_step(journal: Journal, key: str) -> Step:
    """The step. Raises `UnknownStep`, and `StepDrift` for one that is only another name."""
    step = journal.view.steps.get(key)
    if step is None:
        raise UnknownStep("no such step in this run")
    if step.same_as is not None:
        raise StepDrift(f"this call goes on as step {step.same_as}, which is told how it ends", field="step")
    return step


def _result_c(journal: Journal, result: Result) -> str | None:
    return None if result.body is None else journal.commit.digest("outcome.result", result.body)


def _reportable(journal: Journal, step: Step, attempt: int) -> None:
    if step.state is StepState.IN_DOUBT and step.epoch != journal.run.epoch:
        raise StepInDoubt("this attempt is in doubt; reconcile it", step=step.key)
    if step.state not in IN_FLIGHT | {StepState.IN_DOUBT}:
        raise InvalidRequest(f"the step is {step.state.value}; only a started attempt has an outcome", field="step")
    if step.epoch != journal.run.epoch:
        raise StaleEpoch("this attempt was started under an older epoch; begin the step again", epoch=journal.run.epoch)
    if step.attempt != attempt:
        raise InvalidRequest(f"attempt {attempt} is not the step's attempt {step.attempt}", field="attempt")


def complete(journal: Journal, key: str, attempt: int, result: Result) -> Step:
    """Record the result and revoke the grant. The same result again changes nothing; another one is drift."""
    step = known_step(journal, key)
    result_c = _result_c(journal, result)
    if step.state.done:
        if step.result_c != result_c or step.withheld != result.withheld:
            raise StepDrift("the step is completed with another result", field="result")
        return step
    _reportable(journal, step, attempt)
    outcome: dict[str, Any] = {"status": "completed"}
    if result_c is not None:
        outcome["result_c"] = result_c
    journal.add(
        EntryType.STEP_COMPLETED,
        step=key,
        attempt=step.attempt,
        action=journal.action_of(step),
        outcome=outcome,
        body={"withheld": result.withheld},
    )
    _drop_grant(journal, step, "completed")
    return journal.step(key)


def _drop_grant(journal: Journal, step: Step, cause: str, *, meters_back: bool = False) -> None:
    grant = journal.view.grants.get(step.grant or "")
    if grant is not None:
        revoke(journal, grant, cause, settled=True, meters_back=meters_back)


def fail(journal: Journal, key: str, attempt: int, status: FailStatus, error: str | None) -> Step:
    """Record a failure, or the doubt that it leaves."""
    step = known_step(journal, key)
    if step.state is StepState.FAILED and step.attempt == attempt and step.fail_status is status:
        return step
    _reportable(journal, step, attempt)
    grant = journal.view.grants.get(step.grant or "")
    if status is FailStatus.UNKNOWN and provably_unused(grant):
        status = FailStatus.NOT_EXECUTED
    if status is FailStatus.UNKNOWN and step.effect is Effect.ONCE:
        if step.state is not StepState.IN_DOUBT:
            if grant is not None:
                revoke(journal, grant, "outcome_unknown", settled=True)
            doubt(journal, step, "tool_raised")
        return journal.step(key)
    body = {} if error is None else {"error_c": journal.commit.value("outcome.error", error)}
    journal.add(
        EntryType.STEP_FAILED,
        step=key,
        attempt=step.attempt,
        action=journal.action_of(step),
        outcome={"status": status.value},
        body=body,
    )
    _drop_grant(journal, step, "failed", meters_back=status is FailStatus.NOT_EXECUTED)
    return journal.step(key)


def suspend(journal: Journal, key: str, attempt: int) -> Step:
    """Framework control flow left the tool: revoke, and decide later as for a granted step."""
    step = known_step(journal, key)
    if step.state is StepState.SUSPENDED and step.attempt == attempt:
        return step
    _reportable(journal, step, attempt)
    grant = journal.view.grants.get(step.grant or "")
    if step.state is StepState.IN_DOUBT:
        raise StepInDoubt("this attempt is in doubt; reconcile it", step=key)
    journal.add(EntryType.STEP_SUSPENDED, step=key, attempt=step.attempt, action=journal.action_of(step))
    if grant is not None:
        revoke(journal, grant, "suspended")
    return journal.step(key)


def record(
    journal: Journal, key: str, *, name: str, digest_preimage: bytes, id_source: IdSource, result: Result
) -> tuple[Step, bool]:
    """A recorded step; True when its result was there already. Raises `StepDrift` for another action or kind."""
    refuse_bad_key(key)
    digest_c = journal.commit.digest("action.digest", digest_preimage)
    step = journal.view.steps.get(key)
    if step is not None:
        if not step.recorded or step.tool != name or step.digest_c != digest_c:
            raise StepDrift("this key was recorded for another call; give the step a step_id=", field="step")
        return replay(journal, step), True
    body: dict[str, Any] = {
        "idempotency_key": default_idempotency_key(journal.run.id, key),
        "id_source": id_source.value,
        "position": journal.run.step_count + 1,
        "withheld": result.withheld,
    }
    if (parent := parent_of(key)) is not None:
        body["parent"] = parent
    outcome: dict[str, Any] = {"status": "recorded"}
    if (result_c := _result_c(journal, result)) is not None:
        outcome["result_c"] = result_c
    journal.add(
        EntryType.STEP_RECORDED,
        step=key,
        attempt=1,
        action={"tool": name, "resource_c": None, "digest_c": digest_c, "effect": Effect.READ.value},
        outcome=outcome,
        body=body,
    )
    return journal.step(key), False


def look_may_begin_at(journal: Journal, step: Step, limits: Limits) -> int | None:
    """From when on a look at the target tells the truth: old credential dead, settle time over. `None`: never."""
    latest = 0
    for grant in journal.view.grants.values():
        if grant.step != step.key:
            continue
        dead = dead_at(grant, limits.leeway_ms)
        if dead is None:
            return None
        latest = max(latest, dead)
    return (latest or step.doubt_since or journal.now) + step.settle_ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a hook or a person found: `done` with a result, `not_done`, or `unknown`."""

    attempt: int
    verdict: str
    result: Result
    evidence: str | None = None
    via: str | None = None


def reconcile(journal: Journal, key: str, said: Verdict, limits: Limits, *, operator: str | None = None) -> Step:
    """Settle a doubt. A hook's word needs a look that began late enough; a person's word stands.

    Raises `UnknownStep`, `InvalidRequest`, `PriorCredentialLive`.
    """
    step = known_step(journal, key)
    if said.verdict not in VERDICTS:
        raise InvalidRequest("verdict is done, not_done or unknown", field="verdict")
    if step.state is not StepState.IN_DOUBT or step.attempt != said.attempt:
        raise InvalidRequest(f"attempt {said.attempt} of the step is not in doubt", field="attempt")
    if operator is None:
        _refuse_early_look(journal, step, said, limits)
    outcome: dict[str, Any] = {"status": said.verdict}
    if said.verdict == "done" and (result_c := _result_c(journal, said.result)) is not None:
        outcome["result_c"] = result_c
    body: dict[str, Any] = {"verdict": said.verdict}
    if said.via is not None:
        body["via"] = said.via
    if operator is not None:
        body["operator"] = operator
    if said.evidence is not None:
        body["evidence_c"] = journal.commit.value("reconcile.evidence", said.evidence)
    journal.add(
        EntryType.STEP_RECONCILED,
        step=key,
        attempt=step.attempt,
        epoch=step.epoch,
        action=journal.action_of(step),
        outcome=outcome,
        body=body,
    )
    return journal.step(key)


def _refuse_early_look(journal: Journal, step: Step, said: Verdict, limits: Limits) -> None:
    look = journal.view.steps.get(said.via or "")
    if look is None or look.key.rpartition("~reconcile~")[0] != step.key or look.tool != f"{step.tool}.reconcile":
        raise InvalidRequest("name the hook's own step <key>~reconcile~<n> of tool <tool>.reconcile", field="via")
    grant = journal.view.grants.get(look.grant or "")
    if not look.state.done or look.effect is not Effect.READ or grant is None:
        # A recorded step has no credential and was never decided: with it nobody has looked at anything.
        raise InvalidRequest("the hook's step is not completed with a credential of its own, as a read", field="via")
    if said.verdict == "done" and grant.issued_at < (step.doubt_since or 0):
        raise InvalidRequest("the hook looked before the step was in doubt; look again", field="via")
    if said.verdict != "not_done":
        return
    may_begin = look_may_begin_at(journal, step, limits)
    if may_begin is None:
        raise PriorCredentialLive("the old credential can never be proven dead; a person must decide", step=step.key)
    if grant.issued_at < may_begin:
        raise PriorCredentialLive(
            "the hook looked before the old credential was dead and the settle time over; look again",
            retry_after_ms=max(0, may_begin - journal.now),
            step=step.key,
        )


def refuse_large(result: Result, limits: Limits) -> None:
    """Raises `TooLarge`."""
    if result.body is not None and len(result.body) > limits.max_result_bytes:
        raise TooLarge(
            f"the result is over {limits.max_result_bytes} bytes; store it elsewhere and return a reference",
            field="result",
        )
