"""Whether somebody should go on with a run, without being asked by a person (`run.resumable`).

Rules:
* An open run is resumable once its lease has lapsed, whatever it waits for: whoever resumes it finds out.
* A parked one is not while a person's answer decides about it: an approval of the resume itself, set aside, or, where
  it was parked for a question, that question. One parked for approvals waits for all of them (a doubt may be settled by
  the tool's own hook); one parked in doubt waits for both. A question whose time to answer is over is open no more.
* A suspended one waits for something that only its framework knows.
* This says who may be tried, never who may act: opening is decided by policy, as ever. How long to wait between tries
  is the worker's business; it has `tries` and times of the broker's clock for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.state import Run, RunState

QUEUED: Final = "queued"
"""Opened only to be stored; nobody has tried it."""
SET_ASIDE: Final = "set_aside"
"""Given up by a worker: nobody opens it until a person releases it."""
RELEASED: Final = "released"
RESTORED: Final = "restored"
"""The store was put back to an earlier state (`runs.restore`); the run is quarantined as well."""
AWAITING_APPROVAL: Final = "awaiting_approval"
IN_DOUBT: Final = "in_doubt"
SUSPENDED: Final = "suspended"
FOREVER: Final = 1 << 62
LEFT_ALONE: Final = (SET_ASIDE, SUSPENDED)
ASKING: Final = (AWAITING_APPROVAL, IN_DOUBT)


@dataclass(frozen=True, slots=True)
class Standing:
    """A run with what decides whether it is resumable, in one consistent view. Times in ms.

    `pending_until`: when the last unanswered approval that it waits for is over (`waits_for`); `None`: there is none.
    `doubtful`: a step is in doubt, or may repeat another one and nobody said so yet. `now` is the store's clock.
    """

    run: Run
    lease_until: int
    now: int
    pending_until: int | None = None
    doubtful: bool = False


def waits_for(run: Run, step: str) -> bool:
    """Whether a pending approval of this step keeps the run from being resumable."""
    return step == RESUME_STEP or (run.state is RunState.PARKED and run.park_reason in ASKING)


def resumable_at(known: Standing) -> int | None:
    """From when on the run may be resumed; `None` while that takes a person, or for ever.

    For a held run this is the end of its lease, which its holder renews. After a question it is the time of the newest
    entry, which is the answer or later.
    """
    run, pending = known.run, known.pending_until
    if run.state not in {RunState.OPEN, RunState.PARKED} or (pending is not None and pending > known.now):
        return None
    if run.state is RunState.OPEN:
        return max(known.lease_until, pending or 0)
    if run.park_reason in LEFT_ALONE or (run.park_reason == IN_DOUBT and known.doubtful):
        return None
    since = run.last_ts if run.park_reason in ASKING else run.parked_at or 0
    return max(since, pending or 0)


def is_resumable(known: Standing) -> bool:
    """Whether somebody should go on with the run now."""
    at = resumable_at(known)
    return at is not None and at <= known.now


def rests_until(known: Standing) -> int | None:
    """Until when a parked run cannot be resumed if nothing happens to it; `None` where it can be, or is not parked.

    What a run waits for are its approvals and steps, and whatever changes those is an entry of its chain. So this holds
    as long as the chain ends where it was read.
    """
    run, pending = known.run, known.pending_until
    if run.state is not RunState.PARKED or resumable_at(known) is not None:
        return None
    if run.park_reason in LEFT_ALONE or (run.park_reason == IN_DOUBT and known.doubtful):
        return FOREVER
    return pending
