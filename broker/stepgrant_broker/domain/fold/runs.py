"""Folders of run entries.

`tries` counts openings since a step last got a result: a failure is no result (a tool that always fails would look like
progress), and neither is the look of a reconcile hook. A run that was only stored, and one that a person released, was
not tried.
"""

from __future__ import annotations

from typing import Final

from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.fold.common import At, evolve, the_run, with_approval, with_run
from stepgrant_broker.domain.ids import is_hook
from stepgrant_broker.domain.standing import QUEUED, RELEASED, RESTORED
from stepgrant_broker.domain.state import ApprovalStatus, Epoch, Run, RunState, View

PROGRESS: Final = frozenset({EntryType.STEP_COMPLETED, EntryType.STEP_RECORDED})


def advance(view: View, at: At) -> View:
    """Move the chain's head over this entry."""
    run = the_run(view)
    tries = 0 if at.entry.type in PROGRESS and not is_hook(at.step) else run.tries
    run = evolve(run, seq=at.entry.seq + 1, head=at.prev_hash(), last_ts=at.ts, tries=tries)
    return evolve(view, run=run)


def _epoch(view: View, at: At) -> View:
    agent, by = at.part("agent"), at.part("by")
    epoch = Epoch(
        run=str(at.entry.run),
        tenant=at.entry.tenant,
        epoch=at.f["epoch"],
        jkt=agent["jkt"],
        workload=at.body["workload"],
        subject_c=by["subject_c"],
        at=at.ts,
    )
    return evolve(view, epochs={**view.epochs, epoch.epoch: epoch})


def opened(view: View, at: At) -> View:
    """A run begins, held by its opener under epoch 1."""
    agent, by, body = at.part("agent"), at.part("by"), at.body
    run = Run(
        id=str(at.entry.run),
        tenant=at.entry.tenant,
        key=body["run_key"],
        agent=agent["name"],
        agent_version=agent["version"],
        state=RunState.OPEN,
        epoch=at.f["epoch"],
        jkt=agent["jkt"],
        workload=body["workload"],
        subject_c=by["subject_c"],
        opened_at=at.ts,
        labels=body["labels"],
        input_c=body.get("input_c"),
        principal_c=at.f.get("principal_c"),
        principal_method=body.get("principal_method"),
        seq=at.entry.seq,
        head=at.f["prev"],
        last_ts=at.ts,
        tries=1,
    )
    return _epoch(with_run(view, run), at)


def longest_away(run: Run, now: int) -> int:
    """How long a run that comes back now counts as away (ms), which policy may ask people about.

    The longest absence since a step got a result: parking once more does not make a long one short.
    """
    return max(now, run.parked_ms if run.tries else 0)


def resumed(view: View, at: At) -> View:
    """A new holder under a higher epoch; answers given while the run was away start to run out now."""
    agent, by, known = at.part("agent"), at.part("by"), the_run(view)
    run = evolve(
        known,
        state=RunState.OPEN,
        epoch=at.f["epoch"],
        jkt=agent["jkt"],
        workload=at.body["workload"],
        subject_c=by["subject_c"],
        agent_version=agent["version"],
        parked_at=None,
        parked_ms=longest_away(known, at.body["parked_ms"]),
        park_reason=None,
        park_detail_c=None,
        tries=known.tries + 1,
    )
    answered = {
        key: evolve(approval, resumed_at=at.ts)
        for key, approval in view.approvals.items()
        if approval.status is ApprovalStatus.APPROVED and approval.resumed_at is None
    }
    view = _epoch(evolve(view, run=run, approvals={**view.approvals, **answered}), at)
    used = at.f.get("approval")
    if used is None:
        return view
    spent = evolve(view.approvals[used["id"]], status=ApprovalStatus.CONSUMED, consumed_by=f"epoch:{run.epoch}")
    return with_approval(view, spent)


def parked(view: View, at: At) -> View:
    """Nobody holds the run until it is resumed."""
    run, reason = the_run(view), at.body["reason"]
    detail, tries = at.body.get("detail_c"), 0 if reason == QUEUED else run.tries
    parked = evolve(run, state=RunState.PARKED, parked_at=at.ts, park_reason=reason, park_detail_c=detail, tries=tries)
    return with_run(view, parked)


def quarantined(view: View, at: At) -> View:
    """The kill switch: nobody holds the run, and nobody can resume it until it is released."""
    return with_run(view, evolve(the_run(view), state=RunState.QUARANTINED, parked_at=at.ts))


def released(view: View, at: At) -> View:
    """A released run is parked: whoever goes on is attested and decided again."""
    run = the_run(view)
    since = run.parked_at or at.ts
    return with_run(
        view,
        evolve(run, state=RunState.PARKED, parked_at=since, park_reason=RELEASED, park_detail_c=None, tries=0),
    )


def restored(view: View, at: At) -> View:
    """The store lost a part of its record: a holder that it made can never come again, and no answer of before counts.

    What was revoked and what is in doubt has entries of its own.
    """
    run = evolve(
        the_run(view),
        state=RunState.PARKED,
        epoch=at.f["epoch"],
        parked_at=at.ts,
        park_reason=RESTORED,
        park_detail_c=None,
    )
    void = {
        key: evolve(approval, status=ApprovalStatus.VOID)
        for key, approval in view.approvals.items()
        if approval.status in {ApprovalStatus.PENDING, ApprovalStatus.APPROVED}
    }
    return evolve(view, run=run, approvals={**view.approvals, **void})


def ended(view: View, at: At) -> View:
    """The end is final."""
    outcome = at.part("outcome")
    run = evolve(the_run(view), state=RunState(at.body["status"]), ended_at=at.ts, result_c=outcome.get("result_c"))
    return with_run(view, run)


def erased(view: View, at: At) -> View:
    """What stood behind the commitments is gone; the commitments stay, and nobody can open them again."""
    return with_run(view, evolve(the_run(view), erased_at=at.ts))
