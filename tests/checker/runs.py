"""Judging entries of runs: one holder after the other, each with a key of its own (I5), and an end that is one (I9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from checker.evidence import Invariant
from checker.story import Grant, Story
from stepgrant.receipt import Event

Finding = tuple[Invariant, str]

AFTERWARDS: Final = frozenset({"grant_revoked", "run_erased"})
"""What may follow the end of a run."""
RELEASING: Final = frozenset({"grant_issued", "lease_recorded", "grant_redeemed"})
HOLDERS: Final = frozenset({
    "step_prepared", "step_recorded", "step_replayed", "step_completed", "step_failed", "step_suspended",
    "grant_issued", "lease_recorded", "grant_redeemed",
})  # fmt: skip
"""What only a holder can bring about, itself or through what it holds."""
UNDER: Final = frozenset({"step_prepared", "step_recorded", "step_replayed", "grant_issued", "step_adopted"})
"""What is written under the epoch of now. Other entries carry the epoch of what they are about."""
JUMP: Final = 1_000_000
"""The epochs that a restore leaves out, because the lost part may have used them."""


def judge(story: Story, event: Event) -> Iterator[Finding]:
    """What is wrong with this entry where it stands, as far as runs and holders go."""
    if (event.type == "run_opened") != (story.status == "new"):
        yield "I4", f"{event.type} where the run is {story.status}"
        return
    if story.ended is not None:
        if event.type not in AFTERWARDS:
            yield "I9" if event.type in RELEASING else "I4", f"{event.type} after the end of the run"
        return
    if event.type in {"run_opened", "run_resumed"}:
        yield from _taken(story, event)
    elif event.type == "run_restored":
        yield from _restored(story, event)
    elif event.type == "run_ended":
        yield from _ended(story, event)
    elif event.type in HOLDERS and story.status != "open":
        yield "I5", f"{event.type} while nobody holds the run, which is {story.status}"
    elif event.type in UNDER and event.epoch != story.epoch:
        yield "I5", f"{event.type} under epoch {event.epoch}, but the holder's is {story.epoch}"


def _taken(story: Story, event: Event) -> Iterator[Finding]:
    if event.epoch != story.epoch + 1:
        yield "I5", f"epoch {event.epoch} after {story.epoch}"
    if event.part("agent").get("jkt") in story.holders.values():
        yield "I5", "held by a key that held this run before"
    if story.status == "quarantined":
        yield "I5", "resumed while it is quarantined"
    for grant in _alive(story, event.ts):
        yield "I5", f"resumed while {grant.jti} of epoch {grant.epoch} was not taken back"
    yield from _lost_outcomes(story)
    decision, asked = event.part("decision"), story.approvals.get(str(event.part("approval").get("id")))
    approved = asked is not None and asked.settled == "approved" and decision.get("effect") == "require_approval"
    if not (decision.get("effect") == "allow" or approved) or not decision.get("reasons"):
        yield "I6", f"{event.type} without an allow that has a reason"
    if event.part("approval") and (asked is None or asked.settled != "approved" or asked.spent_by is not None):
        yield "I6", f"{event.type} with an approval that nobody gave, or that was used"


def _ended(story: Story, event: Event) -> Iterator[Finding]:
    for grant in _alive(story, event.ts):
        yield "I9", f"the run ended while {grant.jti} was not taken back"
    yield from _lost_outcomes(story)


def _restored(story: Story, event: Event) -> Iterator[Finding]:
    """What the lost part did is not known, so a grant that nobody redeemed in what is left proves nothing."""
    if event.epoch != story.epoch + JUMP or event.part("body").get("from_epoch") != story.epoch:
        yield "I5", f"restored to epoch {event.epoch}, which is not {JUMP} after {story.epoch}"
    for grant in _alive(story, event.ts):
        yield "I5", f"restored while {grant.jti} was not taken back"
    for step in story.steps.values():
        newest = step.grants[-1] if step.grants and step.effect != "read" else None
        open_ = step.finished is None and step.failed is None and step.doubt is None
        if open_ and newest is not None and not newest.failed and newest.attempt not in step.excused:
            yield "I8", f"{step.key} was begun before the restore, and is not in doubt"


def _alive(story: Story, now: int) -> list[Grant]:
    return [grant for grant in story.grants.values() if not grant.over and grant.exp > now]


def _lost_outcomes(story: Story) -> Iterator[Finding]:
    for step in story.steps.values():
        grant = step.unsettled() if step.effect == "once" else None
        if grant is not None and step.doubt is None:
            yield "I8", f"nobody knows what came of {step.key}, attempt {grant.attempt}, and it is not in doubt"
