"""Judging entries of steps: what is finished stays so (I7), and doubt is settled by whoever can know (I8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from checker.folding import whole
from checker.runs import Finding
from checker.story import Step, Story
from stepgrant.receipt import Event

AGAIN: Final = frozenset({"step_prepared", "step_recorded", "step_completed", "step_failed", "step_reconciled"})
"""What cannot come after an outcome."""


def judge(story: Story, event: Event) -> Iterator[Finding]:
    """What is wrong with this entry where it stands, as far as steps and their outcomes go."""
    step = story.known(event.step)
    if step is not None and step.finished is not None and event.type in AGAIN:
        yield "I7", f"{event.type} of {event.step}, which has its outcome since entry {step.finished.seq}"
        return
    rule = RULES.get(event.type)
    if rule is not None:
        yield from rule(story, event)


def _decided(story: Story, event: Event) -> Iterator[Finding]:
    name = str(event.part("decision").get("decision_id"))
    if name in story.decisions:
        yield "I6", f"the decision {name} was used before"


def _prepared(story: Story, event: Event) -> Iterator[Finding]:
    step = story.known(event.step)
    if step is not None:
        yield from _again(event, step)
        return
    body, action = event.part("body"), event.part("action")
    if body.get("id_source") != "call_id" or body.get("duplicate_of") is not None:
        return
    for other in story.steps.values():
        if _lost(story, other) and (other.tool, other.digest_c) == (action.get("tool"), action.get("digest_c")):
            yield (
                "I7",
                f"{event.step} is {other.key} of epoch {other.finished_epoch} once more, and nobody asked",
            )


def _lost(story: Story, step: Step) -> bool:
    """It was completed under a call id of an older epoch, and nothing of this epoch is it already."""
    if step.finished is None or step.first.part("body").get("id_source") != "call_id":
        return False
    claimed = max(step.finished_epoch, step.adopted_epoch, step.replayed_epoch)
    return step.finished.type != "step_recorded" and claimed < story.epoch


def _replayed(story: Story, event: Event) -> Iterator[Finding]:
    step = story.known(event.step)
    if step is None or (step.finished is None and step.failed is None):
        yield "I7", f"{event.step} has no outcome that could be given again"


def _again(event: Event, step: Step) -> Iterator[Finding]:
    body, before, action = event.part("body"), step.prepared.part("body"), event.part("action")
    if any(grant.perhaps_used for grant in step.grants):
        same = (step.digest_c, step.effect, before.get("idempotency_key"))
        if (action.get("digest_c"), action.get("effect"), body.get("idempotency_key")) != same:
            yield "I8", f"{step.key} was started, and is now another action, effect or idempotency key"
    elif body.get("revision") == before.get("revision") and before.get("idempotency_key") != body.get(
        "idempotency_key"
    ):
        yield "I8", f"{step.key} has another idempotency key than before"


def _reported(story: Story, event: Event) -> Iterator[Finding]:
    grant, step = story.granted(event.step, event.attempt), story.known(event.step)
    if grant is None or step is None:
        yield "I3", f"{event.type} of an attempt that was never granted"
        return
    if grant.epoch != story.epoch:
        yield "I5", f"{event.type} of attempt {event.attempt}, which epoch {grant.epoch} began"
    unknown = event.type == "step_failed" and event.part("outcome").get("status") == "unknown"
    if unknown and step.effect == "once" and grant.perhaps_used:
        yield "I8", f"the outcome of {event.step} is not known; that is a doubt, not a failure"


def _reconciled(story: Story, event: Event) -> Iterator[Finding]:
    body, step = event.part("body"), story.known(event.step)
    if step is None or step.doubt is None:
        yield "I8", f"{event.step} is not in doubt"
        return
    if body.get("verdict") != "not_done" or body.get("operator"):
        return
    look = story.known(str(body.get("via")))
    began = look.grants[-1].at if look is not None and look.grants else None
    ends = [grant.dead_at() for grant in step.grants if grant.perhaps_used and grant.attempt not in step.excused]
    settle = whole(step.first.part("body").get("settle_ms"))
    if began is None or any(end is None or began < end + settle for end in ends):
        yield "I8", f"not_done, but the look at {event.step} began before its credential was dead and the dust settled"


def _adopted(story: Story, event: Event) -> Iterator[Finding]:
    step, action = story.known(str(event.part("body").get("from"))), event.part("action")
    if step is None:
        yield "I8", f"{event.step} is adopted from a step that is not there"
        return
    own = story.steps.get(event.step or "")
    if own is not None and own.grants:
        yield "I8", f"{event.step} had grants of its own before it was adopted"
    if action and (action.get("tool"), action.get("digest_c")) != (step.tool, step.digest_c):
        yield "I8", f"{event.step} is adopted from {step.key}, which is another action"
    last = step.finished_epoch if step.finished is not None else step.grants[-1].epoch if step.grants else 0
    if story.epoch in {last, step.adopted_epoch}:
        yield "I8", f"{event.step} is adopted from {step.key} of the same epoch, or a second time in it"


def _by_people(_: Story, event: Event) -> Iterator[Finding]:
    if event.part("by").get("kind") != "person":
        yield "I6", "a question to people was answered by something else"


def _answered(story: Story, event: Event) -> Iterator[Finding]:
    yield from _by_people(story, event)
    approval = story.approvals.get(str(event.part("approval").get("id")))
    if approval is None:
        yield "I6", "an answer to a question that nobody asked"
    elif story.one_clock and event.ts > approval.answer_by:
        yield "I6", f"{approval.id} was answered after {approval.answer_by}"


RULES: Final[Mapping[str, Callable[[Story, Event], Iterator[Finding]]]] = {
    "decision": _decided,
    "run_opened": _decided,
    "run_resumed": _decided,
    "step_prepared": _prepared,
    "step_replayed": _replayed,
    "step_completed": _reported,
    "step_failed": _reported,
    "step_suspended": _reported,
    "step_reconciled": _reconciled,
    "step_adopted": _adopted,
    "approval_decided": _answered,
    "duplicate_decided": _by_people,
}
