"""Folders of step entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stepgrant_broker.domain.decisions import EFFECTS
from stepgrant_broker.domain.fold.approvals import UNDECIDED
from stepgrant_broker.domain.fold.common import (
    At,
    bump,
    evolve,
    the_run,
    with_approval,
    with_history,
    with_step,
)
from stepgrant_broker.domain.state import ID_SOURCES, IN_FLIGHT, ApprovalStatus, FailStatus, Step, StepState, View

DECIDED: Final[Mapping[str, StepState]] = {
    "allow": StepState.PREPARED,
    "deny": StepState.DENIED,
    "require_approval": StepState.AWAITING_APPROVAL,
}


def _outcome(view: View, name: str) -> View:
    history = the_run(view).history
    return with_history(view, evolve(history, outcomes=bump(history.outcomes, name)))


def _landed(view: View) -> View:
    history = the_run(view).history
    return with_history(view, evolve(history, in_flight=max(0, history.in_flight - 1)))


def _new(view: View, at: At, *, recorded: bool) -> View:
    run, action, body = the_run(view), at.part("action"), at.body
    step = Step(
        run=run.id,
        tenant=run.tenant,
        key=at.step,
        recorded=recorded,
        tool=action["tool"],
        effect=EFFECTS[action["effect"]],
        idempotency_key=body["idempotency_key"],
        digest_c=action["digest_c"],
        resource_c=action["resource_c"],
        id_source=ID_SOURCES[body["id_source"]],
        parent=body.get("parent"),
        settle_ms=body.get("settle_ms", 0),
        retry_failed=body.get("retry_failed", False),
        digest_only=body.get("digest_only", False),
        state=StepState.RECORDED if recorded else StepState.PREPARED,
        attempt=at.f["attempt"],
        epoch=at.f["epoch"],
        position=body["position"],
        revision=body.get("revision", 1),
        duplicate_of=body.get("duplicate_of"),
    )
    run = evolve(run, step_count=max(run.step_count, step.position))
    return evolve(view, run=run, steps={**view.steps, step.key: step})


def prepared(view: View, at: At) -> View:
    """A step is new, has other arguments before anything was started, or enters a new attempt."""
    known = view.steps.get(at.step)
    if known is None:
        return _new(view, at, recorded=False)
    if at.body["revision"] != known.revision:
        return void_approvals(_new(view, at, recorded=False), at.step)
    if known.state in IN_FLIGHT:
        view = _landed(view)
    step = evolve(
        known,
        state=StepState.PREPARED,
        attempt=at.f["attempt"],
        epoch=at.f["epoch"],
        previous_outcome=_came_to(known),
        fail_status=None,
        error_c=None,
        doubt=None,
        doubt_since=None,
    )
    return with_step(view, step)


def _came_to(step: Step) -> str | None:
    """How the attempt ended that another one follows, as a plain text: so it comes back from a store."""
    if step.fail_status is not None:
        return step.fail_status.value
    return step.state.value if step.started_ever else step.previous_outcome


def void_approvals(view: View, step: str) -> View:
    """Other arguments are another question: what people answered before is void."""
    for approval in view.approvals.values():
        if approval.step == step and approval.status in {ApprovalStatus.PENDING, ApprovalStatus.APPROVED}:
            view = with_approval(view, evolve(approval, status=ApprovalStatus.VOID))
    return view


def decided(view: View, at: At) -> View:
    """A decision about a step; a denial that stands is counted. Decisions on opening a run touch no step."""
    effect = at.part("decision")["effect"]
    if at.body.get("duplicate") == "ask":
        # A person says first whether it is another call at all; whoever must approve it is asked after that.
        effect = "allow"
    step = view.steps.get(at.step)
    if effect == "deny":
        history = the_run(view).history
        view = with_history(view, evolve(history, denials=history.denials + 1))
    if step is None or step.state not in UNDECIDED:
        return view
    return with_step(view, evolve(step, state=DECIDED[effect], epoch=at.f["epoch"], decision=effect))


def recorded(view: View, at: At) -> View:
    """A step without credential: its result is there at once."""
    view = _new(view, at, recorded=True)
    outcome = at.part("outcome")
    step = evolve(view.steps[at.step], result_c=outcome.get("result_c"), withheld=at.body["withheld"])
    return _outcome(with_step(view, step), "recorded")


def replayed(view: View, at: At) -> View:
    """The first time in this epoch that the recorded outcome was given again."""
    return with_step(view, evolve(view.steps[at.step], replayed_epoch=at.f["epoch"]))


def completed(view: View, at: At) -> View:
    """The step has its result; it is never made again."""
    outcome, step = at.part("outcome"), view.steps[at.step]
    in_flight = step.state in IN_FLIGHT
    step = evolve(
        step,
        state=StepState.COMPLETED,
        result_c=outcome.get("result_c"),
        withheld=at.body["withheld"],
        doubt=None,
        doubt_since=None,
        replayed_epoch=at.f["epoch"],
    )
    view = _outcome(with_step(view, step), "completed")
    return _landed(view) if in_flight else view


def failed(view: View, at: At) -> View:
    """The step failed: `not_executed`, `failed`, or `unknown` where that is no doubt."""
    status = FailStatus(at.part("outcome")["status"])
    step = view.steps[at.step]
    in_flight = step.state in IN_FLIGHT
    step = evolve(step, state=StepState.FAILED, fail_status=status, error_c=at.body.get("error_c"), doubt=None)
    view = _outcome(with_step(view, step), "failed")
    return _landed(view) if in_flight else view


def suspended(view: View, at: At) -> View:
    """Framework control flow passed through the tool."""
    return with_step(view, evolve(view.steps[at.step], state=StepState.SUSPENDED))


def in_doubt(view: View, at: At) -> View:
    """The credential may have been used and the outcome is not known."""
    step = view.steps[at.step]
    in_flight = step.state in IN_FLIGHT
    step = evolve(step, state=StepState.IN_DOUBT, doubt=at.f.get("cause"), doubt_since=at.body["since"])
    view = _outcome(with_step(view, step), "in_doubt")
    return _landed(view) if in_flight else view


def reconciled(view: View, at: At) -> View:
    """Somebody looked: done and not_done settle the doubt, unknown leaves it."""
    outcome, step = at.part("outcome"), view.steps[at.step]
    step = evolve(step, reconciles=step.reconciles + 1)
    verdict = at.body["verdict"]
    if verdict == "unknown":
        return with_step(view, step)
    step = evolve(step, doubt=None, doubt_since=None)
    if verdict == "done":
        step = evolve(step, state=StepState.COMPLETED, result_c=outcome.get("result_c"))
        return _outcome(with_step(view, step), "completed")
    return with_step(view, evolve(step, state=StepState.FAILED, fail_status=FailStatus.NOT_EXECUTED))
