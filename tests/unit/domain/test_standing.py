"""From when on a run may be resumed without a person: the rules of `domain.standing`, each for itself."""

from __future__ import annotations

import pytest

from changing import replace
from fakes.world import START, World
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.standing import (
    AWAITING_APPROVAL,
    FOREVER,
    IN_DOUBT,
    QUEUED,
    RELEASED,
    SET_ASIDE,
    SUSPENDED,
    Standing,
    is_resumable,
    rests_until,
    resumable_at,
    waits_for,
)
from stepgrant_broker.domain.state import Run, RunState

PARKED = START + 1_000
NEWEST = START + 5_000
NOW = START + 10_000


def run_of(state: RunState, reason: str | None = None) -> Run:
    world = World()
    world.open()
    assert world.view.run is not None
    parked = PARKED if state is RunState.PARKED else None
    return replace(world.view.run, state=state, park_reason=reason, parked_at=parked, last_ts=NEWEST)


def stands(state: RunState, reason: str | None = None, **more: int | bool | None) -> Standing:
    known = {"lease_until": START, "now": NOW, **more}
    return Standing(run_of(state, reason), **known)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize("lease_until", [NOW - 1, NOW, NOW + 1])
def test_a_held_run_is_free_when_its_lease_ends(lease_until: int) -> None:
    known = stands(RunState.OPEN, lease_until=lease_until)
    assert resumable_at(known) == lease_until
    assert is_resumable(known) is (lease_until <= NOW)


@pytest.mark.parametrize("state", [RunState.QUARANTINED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
def test_what_is_stopped_or_over_never_is(state: RunState) -> None:
    assert resumable_at(stands(state)) is None
    assert not is_resumable(stands(state))


@pytest.mark.parametrize(
    ("reason", "at"),
    [
        (QUEUED, PARKED),
        (RELEASED, PARKED),
        ("lease_lapsed", PARKED),
        (AWAITING_APPROVAL, NEWEST),
        (IN_DOUBT, NEWEST),
        (SET_ASIDE, None),
        (SUSPENDED, None),
    ],
)
def test_a_parked_run_is_by_why_it_was_parked(reason: str, at: int | None) -> None:
    assert resumable_at(stands(RunState.PARKED, reason)) == at


@pytest.mark.parametrize("reason", [AWAITING_APPROVAL, IN_DOUBT, "requested"])
def test_a_doubt_keeps_only_what_was_parked_for_it(reason: str) -> None:
    known = stands(RunState.PARKED, reason, doubtful=True)
    assert is_resumable(known) is (reason != IN_DOUBT)


@pytest.mark.parametrize("state", [RunState.OPEN, RunState.PARKED])
def test_nobody_comes_before_the_question_that_it_waits_for(state: RunState) -> None:
    """Until its answer, or until the time to give one is over."""
    waiting = stands(state, AWAITING_APPROVAL, pending_until=NOW + 1)
    assert resumable_at(waiting) is None
    assert resumable_at(replace(waiting, now=NOW + 1)) == NOW + 1
    assert resumable_at(replace(waiting, pending_until=None)) in {START, NEWEST}


@pytest.mark.parametrize(
    ("state", "reason", "waits"),
    [
        (RunState.PARKED, AWAITING_APPROVAL, True),
        (RunState.PARKED, IN_DOUBT, True),
        (RunState.PARKED, "requested", False),
        (RunState.OPEN, None, False),
    ],
)
def test_a_question_about_a_step_is_waited_for_only_by_a_run_that_was_parked_for_one(
    state: RunState, reason: str | None, *, waits: bool
) -> None:
    assert waits_for(run_of(state, reason), "s1") is waits
    assert waits_for(run_of(state, reason), RESUME_STEP), "one about the resume by each"


@pytest.mark.parametrize(
    ("state", "reason", "more", "until"),
    [
        (RunState.OPEN, None, {"pending_until": NOW + 5}, None),
        (RunState.COMPLETED, None, {}, None),
        (RunState.QUARANTINED, None, {}, None),
        (RunState.PARKED, QUEUED, {}, None),
        (RunState.PARKED, SUSPENDED, {}, FOREVER),
        (RunState.PARKED, SET_ASIDE, {"pending_until": NOW + 5}, FOREVER),
        (RunState.PARKED, AWAITING_APPROVAL, {"pending_until": NOW + 5}, NOW + 5),
        (RunState.PARKED, AWAITING_APPROVAL, {"pending_until": NOW}, None),
        (RunState.PARKED, IN_DOUBT, {"pending_until": NOW + 5}, NOW + 5),
        (RunState.PARKED, IN_DOUBT, {"pending_until": NOW + 5, "doubtful": True}, FOREVER),
        (RunState.PARKED, IN_DOUBT, {"doubtful": True}, FOREVER),
        (RunState.PARKED, RELEASED, {"doubtful": True}, None),
    ],
)
def test_what_nobody_can_resume_rests_until_that_may_change(
    state: RunState, reason: str | None, more: dict[str, int | bool | None], until: int | None
) -> None:
    known = stands(state, reason, **more)
    assert rests_until(known) == until
    if until is not None and until != FOREVER:
        assert is_resumable(replace(known, now=until))
        assert not is_resumable(replace(known, now=until - 1))
