"""How each entry moves the story of its run. An entry of a type that is not known moves nothing."""

from __future__ import annotations

from typing import Any, Final

from checker.story import Approval, Grant, Step, Story
from stepgrant.receipt import Event


def fold(story: Story, event: Event) -> None:
    """Let one entry happen."""
    folder = FOLDERS.get(event.type)
    if folder is not None:
        folder(story, event)


def whole(value: Any) -> int:  # noqa: ANN401 - JSON
    """A number of an entry; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _taken(story: Story, event: Event) -> None:
    story.epoch, story.holder, story.status = event.epoch or 0, str(event.part("agent").get("jkt")), "open"
    story.holders[story.epoch], story.since[story.epoch] = story.holder, event.ts
    for approval in story.approvals.values():
        if approval.settled == "approved" and not approval.resumed_at and event.type == "run_resumed":
            approval.resumed_at = event.ts
    used = story.approvals.get(str(event.part("approval").get("id")))
    if used is not None:
        used.spent_by = f"epoch {story.epoch}"
    name(story, event)


def _parked(story: Story, event: Event) -> None:
    story.status = "quarantined" if event.type == "run_quarantined" else "parked"


def _restored(story: Story, event: Event) -> None:
    """The record lost its newest part: whoever held the run then is behind the epoch, and no answer counts any more."""
    story.status, story.epoch = "parked", event.epoch or 0
    for approval in story.approvals.values():
        if approval.settled in {"pending", "approved"} and approval.spent_by is None:
            approval.settled = "void"


def _ended(story: Story, event: Event) -> None:
    story.status, story.ended = str(event.part("body").get("status")), event


def _prepared(story: Story, event: Event) -> None:
    action, known = event.part("action"), story.steps.get(event.step or "")
    if known is None:
        resource = action.get("resource_c")
        story.steps[event.step or ""] = known = Step(
            event.step or "", event, event, str(action.get("tool")), str(action.get("effect")),
            str(action.get("digest_c")), resource if isinstance(resource, str) else None,
        )  # fmt: skip
    known.prepared, known.failed = event, None
    known.effect, known.digest_c = str(action.get("effect")), str(action.get("digest_c"))
    if event.type == "step_recorded":
        _finished(story, event)


def _decided(story: Story, event: Event) -> None:
    story.decided[event.step or ""] = event
    name(story, event)


def name(story: Story, event: Event) -> None:
    """Remember a decision by its name."""
    decision = event.part("decision")
    story.decisions[str(decision.get("decision_id"))] = event, str(decision.get("effect"))


def _issued(story: Story, event: Event) -> None:
    action, body, named = event.part("action"), event.part("body"), event.part("grant")
    approval = event.part("approval").get("id")
    grant = Grant(
        jti=str(named.get("jti")), step=event.step or "", attempt=event.attempt or 0, epoch=event.epoch or 0,
        seq=event.seq, at=event.ts, exp=whole(named.get("exp")), tool=str(action.get("tool")),
        effect=str(action.get("effect")), redeem=str(body.get("redeem")), revocation=str(body.get("revocation")),
        outside=body.get("intent") is True, jkt=str(body.get("jkt")), audience=str(body.get("audience")),
        approval=approval if isinstance(approval, str) else None,
    )  # fmt: skip
    before = story.granted(event.step, event.attempt)
    if before is not None and body.get("not_received") is True and before.over and before.dead(event.ts):
        before.disclaimed = True
    story.grants[grant.jti] = grant
    step = story.known(event.step)
    if step is not None:
        step.grants.append(grant)
        step.failed = None
    spent = story.approvals.get(grant.approval or "")
    if spent is not None:
        spent.spent_by = grant.jti
    story.decided.pop(event.step or "", None)


def _failed_grant(story: Story, event: Event) -> None:
    grant = story.grant_of(event)
    if grant is not None:
        grant.failed = True
        _give_back(story, grant)


def _leased(story: Story, event: Event) -> None:
    grant = story.grant_of(event)
    if grant is not None:
        grant.leased_at, grant.exp = event.ts, whole(event.part("grant").get("exp"))


def _redeemed(story: Story, event: Event) -> None:
    grant = story.grant_of(event)
    if grant is not None and grant.redeemed is None:
        grant.redeemed, grant.act_before = event.ts, whole(event.part("body").get("act_before"))


def _revoked(story: Story, event: Event) -> None:
    grant = story.grant_of(event)
    if grant is None:
        return
    body = event.part("body")
    grant.revoked = event.ts if grant.revoked is None else grant.revoked
    if body.get("confirmed") is True and grant.confirmed is None:
        grant.confirmed = event.ts
    if body.get("unused") is True:
        _give_back(story, grant)


def _give_back(story: Story, grant: Grant) -> None:
    spent = story.approvals.get(grant.approval or "")
    if spent is not None and spent.spent_by == grant.jti:
        spent.spent_by = None


def _finished(story: Story, event: Event) -> None:
    step = story.known(event.step)
    if step is not None and step.finished is None:
        step.finished, step.finished_epoch, step.doubt = event, story.epoch, None


def _failed(story: Story, event: Event) -> None:
    step = story.known(event.step)
    if step is None:
        return
    step.doubt = None
    if event.part("outcome").get("status") == "not_executed":
        step.excused[event.attempt or 0] = event
    step.failed = event


def _doubted(story: Story, event: Event) -> None:
    step = story.known(event.step)
    if step is not None:
        step.doubt = event


def _reconciled(story: Story, event: Event) -> None:
    step, verdict = story.known(event.step), event.part("body").get("verdict")
    if step is None or verdict not in {"done", "not_done"}:
        return
    step.doubt = None
    if verdict == "done":
        _finished(story, event)
    else:
        step.excused[event.attempt or 0] = event


def _adopted(story: Story, event: Event) -> None:
    key = str(event.part("body").get("from"))
    story.aliases[event.step or ""] = story.aliases.get(key, key)
    step = story.known(key)
    if step is not None:
        step.adopted_epoch = story.epoch


def _same(story: Story, event: Event) -> None:
    body = event.part("body")
    if body.get("verdict") == "replay":
        story.aliases[event.step or ""] = str(body.get("of"))


def _replayed(story: Story, event: Event) -> None:
    step = story.known(event.step)
    if step is not None:
        step.replayed_epoch = story.epoch


def _asked(story: Story, event: Event) -> None:
    body, name = event.part("body"), str(event.part("approval").get("id"))
    story.approvals[name] = Approval(
        name, event.step or "", whole(body.get("quorum")), whole(body.get("answer_by")), whole(body.get("valid_for_ms"))
    )


def _answered(story: Story, event: Event) -> None:
    approval, body = story.approvals.get(str(event.part("approval").get("id"))), event.part("body")
    if approval is None:
        return
    if body.get("verdict") == "approve":
        approval.yes.add(str(event.part("by").get("subject_c")))
    approval.settled = str(body.get("settled"))
    approval.settled_at = event.ts


FOLDERS: Final = {
    "run_opened": _taken, "run_resumed": _taken, "run_parked": _parked, "run_quarantined": _parked,
    "run_released": _parked, "run_restored": _restored, "run_ended": _ended, "step_prepared": _prepared,
    "step_recorded": _prepared,
    "decision": _decided, "grant_issued": _issued, "grant_failed": _failed_grant, "lease_recorded": _leased,
    "grant_redeemed": _redeemed, "grant_revoked": _revoked, "step_completed": _finished, "step_failed": _failed,
    "step_in_doubt": _doubted, "step_reconciled": _reconciled, "step_adopted": _adopted,
    "duplicate_decided": _same, "step_replayed": _replayed,
    "approval_requested": _asked, "approval_decided": _answered,
}  # fmt: skip
