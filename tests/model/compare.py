"""Is what can be seen of a run what the model says? Only what the protocol settles is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from model.plain import Plain
from model.real import Seen
from model.things import Approval, Grant, Run, Step
from stepgrant_broker.domain import state

ROUNDED_MS: Final = 1_000
"""A token's times are whole seconds."""


def differences(plain: Plain, name: str, seen: Seen) -> list[str]:
    """What differs, in words. An expiry within the second is taken over from the broker, which may round down."""
    return [*_of(plain, plain.runs[name], seen)]


def _of(plain: Plain, run: Run, seen: Seen) -> Iterator[str]:
    if (seen.run.state, seen.run.epoch, seen.run.jkt) != (run.state, run.epoch, run.key):
        yield f"it is {seen.run.state} in epoch {seen.run.epoch} of {seen.run.jkt}, not {run}"
    if run.state == "open" and seen.lease_until != run.lease_until:
        yield f"its lease runs until {seen.lease_until}, not {run.lease_until}"
    if seen.steps.keys() != run.steps.keys():
        yield f"it has the steps {sorted(seen.steps)}, not {sorted(run.steps)}"
        return
    for key, step in run.steps.items():
        yield from _step(key, step, seen.steps[key])
    if len(seen.grants) != len(run.grants):
        yield f"it has {len(seen.grants)} grants, not {len(run.grants)}"
        return
    for number, grant in enumerate(run.grants):
        yield from _grant(plain, f"grant {number}", grant, seen.grants[number])
    if len(seen.approvals) != len(run.approvals):
        yield f"it has {len(seen.approvals)} approvals, not {len(run.approvals)}"
        return
    for number, approval in enumerate(run.approvals):
        yield from _approval(f"approval {number}", approval, seen.approvals[number])


def rows(step: Step) -> set[str]:
    """As what the broker may show a step of this line of the table."""
    if step.row in {"completed", "in_doubt", "failed", "not_executed", "unknown"}:
        return {step.row}
    return {"granted"} if step.used else {"granted", "undecided"}


def row_of(step: state.Step) -> str:
    """The line of the table that a step of the broker is on."""
    if step.state is state.StepState.FAILED:
        return str(step.fail_status)
    if step.state in {state.StepState.STARTED, state.StepState.SUSPENDED}:
        return "granted"
    return step.state.value if step.state in {state.StepState.COMPLETED, state.StepState.IN_DOUBT} else "undecided"


def _step(key: str, step: Step, real: state.Step) -> Iterator[str]:
    if row_of(real) not in rows(step):
        yield f"step {key} is {real.state} ({real.fail_status}), not {rows(step)}"
    if real.attempt != step.attempt:
        yield f"step {key} is in attempt {real.attempt}, not {step.attempt}"


def _grant(plain: Plain, what: str, grant: Grant, real: state.Grant) -> Iterator[str]:
    binding = (real.step, real.attempt, real.epoch, real.effect)
    if binding != (grant.step, grant.attempt, grant.epoch, grant.effect):
        yield f"{what} is for {binding}, not {grant}"
    if real.exp != grant.exp:
        if not grant.exp - ROUNDED_MS < real.exp <= grant.exp:
            yield f"{what} expires at {real.exp}, not {grant.exp}"
        grant.exp = real.exp
    usable = real.status is state.GrantStatus.ISSUED
    if usable == grant.revoked and plain.now < grant.exp:
        yield f"{what} is {real.status}, not {grant}"
    if real.redeem.value != ("required" if grant.required else "optional"):
        yield f"{what} has redeem {real.redeem}"
    if (real.redeemed_at, real.act_before or 0) != (grant.redeemed_at, grant.act_before):
        yield f"{what} was redeemed at {real.redeemed_at} until {real.act_before}, not {grant}"


def _approval(what: str, approval: Approval, real: state.Approval) -> Iterator[str]:
    if (real.step, real.effect) != (approval.of[0], approval.of[2]):
        yield f"{what} is for {real.step}, not {approval.of}"
    if (real.quorum, real.answer_by) != (approval.quorum, approval.answer_by):
        yield f"{what} asks {real.quorum} until {real.answer_by}, not {approval}"
    if (real.status is state.ApprovalStatus.DENIED) != (approval.status == "denied"):
        yield f"{what} is {real.status}, not {approval.status}"
    if {answer.operator for answer in real.answers} != {f"opr_{name}" for name in approval.yes}:
        yield f"{what} was answered by {real.answers}, not {approval.yes}"
