"""Folders of entries about calls whose ids were lost (`protocol.md` §4)."""

from __future__ import annotations

from stepgrant_broker.domain.fold.common import At, evolve, the_run, with_step
from stepgrant_broker.domain.fold.steps import void_approvals
from stepgrant_broker.domain.ids import parent_of
from stepgrant_broker.domain.state import IdSource, Step, StepState, View


def adopted(view: View, at: At) -> View:
    """The step is from now on another name of the one that its call was before."""
    run, meant = the_run(view), view.steps[at.body["from"]]
    name = view.steps.get(at.step)
    if name is None:
        name = _name(meant, at.step, epoch=at.f["epoch"], position=run.step_count + 1)
        view = evolve(view, run=evolve(run, step_count=name.position))
    else:
        view, name = void_approvals(view, at.step), evolve(name, state=StepState.ADOPTED, same_as=meant.key)
    return with_step(with_step(view, name), evolve(meant, adopted_epoch=at.f["epoch"]))


def duplicate_decided(view: View, at: At) -> View:
    """A person said whether the call is the completed one again (`replay`) or another one (`run`)."""
    step = view.steps[at.step]
    if at.body["verdict"] == "run":
        return with_step(view, evolve(step, duplicate="run"))
    of = view.steps[at.body["of"]]
    view = with_step(void_approvals(view, at.step), evolve(step, state=StepState.ADOPTED, same_as=of.key))
    # Its own id may be lost too, at every resume: once in each later epoch the equal call is the completed one.
    return with_step(view, evolve(of, duplicate="replay"))


def _name(meant: Step, key: str, *, epoch: int, position: int) -> Step:
    """Another name: what is fixed of a step, and nothing of its life."""
    return Step(
        run=meant.run,
        tenant=meant.tenant,
        key=key,
        recorded=False,
        tool=meant.tool,
        effect=meant.effect,
        idempotency_key=meant.idempotency_key,
        digest_c=meant.digest_c,
        resource_c=meant.resource_c,
        id_source=IdSource.CALL_ID,
        parent=parent_of(key),
        settle_ms=meant.settle_ms,
        retry_failed=meant.retry_failed,
        digest_only=meant.digest_only,
        state=StepState.ADOPTED,
        attempt=meant.attempt,
        epoch=epoch,
        position=position,
        same_as=meant.key,
    )
