"""Judging entries of grants.

One at a time (I2), recorded before anything (I3), for the holder only (I5), allowed by somebody (I6), never for
finished work (I7), and once where once is meant (I8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from checker.runs import RELEASING, Finding
from checker.story import Grant, Step, Story
from stepgrant.receipt import Event

LATE_MS: Final = 10_000
"""More than any leeway for other clocks."""
ACT_WITHIN_MS: Final = 10_000
OF_GRANTS: Final = frozenset({"lease_recorded", "grant_redeemed", "grant_revoked", "grant_failed"})


def judge(story: Story, event: Event) -> Iterator[Finding]:
    """What is wrong with this entry where it stands, as far as grants go."""
    if story.ended is not None and event.type in RELEASING:
        return
    if event.type == "grant_issued":
        yield from _issued(story, event)
    elif event.type in OF_GRANTS:
        grant = story.grant_of(event)
        if grant is None:
            yield "I3", f"{event.type} of a grant that no entry issued"
        elif event.type == "lease_recorded":
            yield from _leased(story, grant)
        elif event.type == "grant_redeemed":
            yield from _redeemed(story, event, grant)
        elif event.part("body").get("unused") is True and grant.redeemed is not None:
            yield "I8", f"{grant.jti} is called unused, but it was redeemed"


def _issued(story: Story, event: Event) -> Iterator[Finding]:
    step, jti = story.known(event.step), str(event.part("grant").get("jti"))
    if jti in story.grants:
        yield "I2", f"{jti} is issued again"
    if step is None:
        yield "I3", f"a grant for {event.step}, which was never recorded"
        return
    if event.part("body").get("jkt") != story.holder:
        yield "I5", "bound to another key than the holder's"
    if step.finished is not None:
        yield "I7", f"{step.key} has its outcome (entry {step.finished.seq}) and is granted again"
    for before in step.grants:
        if before.attempt == event.attempt and not (before.over and _gone(before, event)):
            yield "I2", f"{before.jti} of the same attempt still lives"
    if event.part("action").get("effect") != "read":
        yield from _still_live(story, event)
    yield from _decided(story, event)
    if step.effect == "once":
        yield from _once(story, event, step)


def _gone(before: Grant, event: Event) -> bool:
    """An attempt has a second grant only if nothing can have come, or can come, from the first."""
    said = event.part("body").get("not_received") is True and before.redeemed is None
    return not before.perhaps_used or (said and before.dead(event.ts))


def _still_live(story: Story, event: Event) -> Iterator[Finding]:
    for grant in story.grants.values():
        if grant.effect != "read" and grant.epoch < story.epoch and not grant.dead(event.ts):
            if grant.revocation == "none" and grant.exp <= event.ts:
                continue
            yield "I5", f"started while {grant.jti} of epoch {grant.epoch} may still work"


def _decided(story: Story, event: Event) -> Iterator[Finding]:
    decided = story.decided.get(event.step or "")
    if decided is None or (decided.epoch, decided.attempt) != (event.epoch, event.attempt):
        yield "I6", "no decision of its own came before it"
        return
    decision, approval = decided.part("decision"), story.approvals.get(str(event.part("approval").get("id")))
    if decided.part("body").get("phase") == "prepare":
        yield "I6", "what was decided was advice, not this start"
    if decided.part("body").get("duplicate") in {"ask", "replay"}:
        yield "I6", "nobody said that it is another call than the completed one"
    if not (decision.get("reasons") and decision.get("policy_revision") and decision.get("decision_id")):
        yield "I6", "its decision has no reason, no revision or no name"
    if event.part("approval") and approval is None:
        yield "I6", "it names an approval that was never asked for"
    elif approval is not None:
        yield from (("I6", text) for text in _unusable(story, event, approval.id))
    elif decision.get("effect") != "allow":
        yield "I6", f"the decision was {decision.get('effect')}"
    if decision.get("effect") not in {"allow", "require_approval"}:
        yield "I6", f"the decision was {decision.get('effect')}, whatever people said"


def _unusable(story: Story, event: Event, name: str) -> Iterator[str]:
    """Why people's answer does not carry this grant."""
    approval, inherited = story.approvals[name], event.part("body").get("inherits")
    if approval.step != event.step:
        yield f"{name} is about {approval.step}"
    if approval.settled != "approved" or len(approval.yes) < max(1, approval.quorum):
        yield f"{name} is {approval.settled}, with {len(approval.yes)} of {approval.quorum} who said yes"
    if approval.spent_by is not None and approval.spent_by != inherited:
        yield f"{name} was used already, by {approval.spent_by}"
    until = max(approval.settled_at, approval.resumed_at) + approval.valid_for
    if story.one_clock and inherited is None and event.ts >= until:
        yield f"{name} counted until {until} only"


def _once(story: Story, event: Event, step: Step) -> Iterator[Finding]:
    told = event.part("body").get("not_received") is True
    for before in step.grants:
        excused = before.attempt in step.excused and before.attempt != event.attempt
        stated = told and before.attempt == event.attempt and before.redeemed is None
        if before.perhaps_used and not excused and not stated:
            yield "I8", f"{before.jti} was perhaps used, nobody said that it was not, and {step.key} is started again"
    for other in story.steps.values():
        if _blocks(other, step):
            yield "I8", f"{other.key}, of the same tool and resource, is in doubt"


def _blocks(other: Step, step: Step) -> bool:
    """A doubt of an older epoch stops steps that are new since then."""
    if other is step or other.effect != "once" or other.doubt is None or not other.grants:
        return False
    same = (other.tool, other.resource_c) == (step.tool, step.resource_c)
    return same and (step.first.epoch or 0) > other.grants[-1].epoch and step.first.seq > other.doubt.seq


def _leased(story: Story, grant: Grant) -> Iterator[Finding]:
    if grant.leased:
        yield "I2", f"a second lease of {grant.jti}"
    if grant.over:
        yield "I3", f"{grant.jti} was taken back before its lease was recorded"
    if grant.epoch != story.epoch:
        yield "I5", f"a lease for epoch {grant.epoch}, which is fenced"


def _redeemed(story: Story, event: Event, grant: Grant) -> Iterator[Finding]:
    step, act_before = story.known(grant.step), event.part("body").get("act_before")
    if grant.redeemed is not None:
        yield "I2", f"{grant.jti} is redeemed a second time"
    if grant.epoch != story.epoch:
        yield "I5", f"{grant.jti} of epoch {grant.epoch} is redeemed, but the holder's is {story.epoch}"
    elif step is not None and step.finished is not None:
        yield "I7", f"{grant.jti} is redeemed after {grant.step} had its outcome"
    elif grant.over or (story.one_clock and event.ts >= grant.exp + LATE_MS):
        yield "I3", f"{grant.jti} is redeemed, but it was taken back or had run out"
    if not isinstance(act_before, int) or act_before > min(event.ts + ACT_WITHIN_MS, grant.exp):
        yield "I3", f"{grant.jti} may be acted on until {act_before}, which is too late"
