"""Opening, holding, resuming, parking, the kill switch and the end of a run."""

import pytest

from fakes.world import START, World, agent, call, workload
from stepgrant_broker.domain import runs
from stepgrant_broker.domain.errors import (
    DuplicateRequest,
    InvalidRequest,
    InvalidToken,
    LeaseHeld,
    Quarantined,
    RunEnded,
    StaleEpoch,
    StepInDoubt,
    UnknownRun,
    WrongHolder,
)
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import GrantStatus, RunState, StepState
from stepgrant_broker.domain.writes import Quarantine


def opened() -> World:
    world = World()
    world.open()
    return world


def test_a_run_opens_under_epoch_one_held_by_its_opener() -> None:
    world = opened()
    run = require_holder(world.loaded(), agent(), 1)
    assert (run.epoch, run.state, run.jkt, run.opened_at) == (1, RunState.OPEN, "k1", START)
    assert [entry.type for entry in world.entries] == ["run_opened"]


def test_resume_raises_the_epoch_and_fences_the_zombie() -> None:
    world = opened()
    world.lapse()
    world.resume(agent("k2", now=world.now))
    assert world.epoch == 2
    with pytest.raises(StaleEpoch) as zombie:
        require_holder(world.loaded(), agent("k1"), 1)
    assert zombie.value.code == "stale_epoch"
    assert zombie.value.more == {"epoch": 2}


def test_the_zombies_key_does_not_hold_the_new_epoch() -> None:
    world = opened()
    world.lapse()
    world.resume(agent("k2", now=world.now))
    with pytest.raises(WrongHolder):
        require_holder(world.loaded(), agent("k1"), 2)


def test_the_new_key_under_the_old_epoch_is_stale() -> None:
    world = opened()
    world.lapse()
    world.resume(agent("k2", now=world.now))
    with pytest.raises(StaleEpoch):
        require_holder(world.loaded(), agent("k2"), 1)


def test_another_workload_with_the_right_key_does_not_hold_the_run() -> None:
    world = opened()
    with pytest.raises(WrongHolder):
        require_holder(world.loaded(), agent("k1", "w2"), 1)


def test_a_lapsed_lease_fences_its_holder_though_nobody_took_over() -> None:
    world = opened()
    world.now = world.lease_until
    with pytest.raises(StaleEpoch, match="lease has lapsed"):
        require_holder(world.loaded(), agent(), 1)


def test_a_parked_run_fences_its_holder() -> None:
    world = opened()
    world.park()
    world.lease_until = world.now + 1000
    with pytest.raises(StaleEpoch, match="parked"):
        require_holder(world.loaded(), agent(), 1)


def test_a_run_of_another_tenant_does_not_exist() -> None:
    world = opened()
    with pytest.raises(UnknownRun):
        require_holder(world.loaded(), agent(tenant="other"), 1)


def test_a_running_lease_is_not_given_away() -> None:
    world = opened()
    with pytest.raises(LeaseHeld) as held:
        world.resume(agent("k2"))
    assert held.value.retry_after_ms == world.limits.lease_ms
    assert world.epoch == 1


def test_an_asked_takeover_of_a_running_lease_is_a_takeover() -> None:
    world = opened()
    run = world.view.run
    assert run is not None
    claim = runs.claim(world.loaded(), run, agent("k2"), run.subject_c, takeover=True)
    assert (claim.tool, claim.lease_lapsed, claim.same_subject) == ("stepgrant.run.takeover", False, True)


def test_another_subject_takes_over_even_when_the_lease_lapsed() -> None:
    world = opened()
    world.lapse()
    run = world.view.run
    assert run is not None
    claim = runs.claim(world.loaded(), run, agent("k2", "w2"), "another", takeover=False)
    assert (claim.tool, claim.same_subject) == ("stepgrant.run.takeover", False)


def test_a_resume_needs_a_key_that_is_new_to_the_run() -> None:
    world = opened()
    world.lapse()
    with pytest.raises(WrongHolder, match="fresh key"):
        world.resume(agent("k1", now=world.now))
    assert world.epoch == 1


def test_parked_time_is_told_to_policy() -> None:
    world = opened()
    world.park()
    world.now += 5_000
    run = world.view.run
    assert run is not None
    assert runs.claim(world.loaded(), run, agent("k2"), run.subject_c, takeover=False).parked_ms == 5_000


def test_an_old_attestation_neither_opens_nor_resumes() -> None:
    runs.refuse_stale_attestation(agent(now=START), START + 60_000, Limits())
    with pytest.raises(InvalidToken, match="exchange again"):
        runs.refuse_stale_attestation(agent(now=START), START + 60_001, Limits())


def test_a_run_key_stands_for_one_input() -> None:
    run = opened().view.run
    assert run is not None
    runs.refuse_other_input(run, None)
    with pytest.raises(DuplicateRequest) as refused:
        runs.refuse_other_input(run, "other")
    assert refused.value.field == "input"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_end_is_final(status: str) -> None:
    world = opened()
    world.end(status)
    assert world.state is RunState(status)
    with pytest.raises(RunEnded):
        require_holder(world.loaded(), agent(), 1)
    with pytest.raises(RunEnded):
        world.resume(agent("k2"))


def test_a_run_with_a_doubt_cannot_be_completed_but_failed() -> None:
    world = opened()
    world.begin(call())
    world.redeem()
    entries = len(world.entries)
    with pytest.raises(StepInDoubt) as refused:
        world.end()
    assert refused.value.more == {"steps": ["s1"]}
    assert len(world.entries) == entries
    world.end("failed")
    assert world.step().state is StepState.IN_DOUBT
    assert world.state is RunState.FAILED


def test_the_end_revokes_what_the_run_holds() -> None:
    world = opened()
    world.begin(call())
    world.end("cancelled")
    assert world.grant().status is GrantStatus.REVOKED


def test_parking_once_more_does_not_make_a_long_absence_short() -> None:
    """Until a step has a result: what policy asks after a long absence cannot be washed off."""
    world = World()
    world.open()
    seen = []
    for number, away in enumerate((100_000, 5_000, 7_000), 2):
        world.park()
        world.now += away
        world.resume(agent(f"k{number}"))
        seen.append(world.view.run.parked_ms if world.view.run else None)
        if number == 3:
            world.begin(call(epoch=number), who=agent(f"k{number}"))
            world.redeem()
            world.complete()
    assert seen == [100_000, 100_000, 7_000]


def test_quarantine_revokes_refuses_and_is_lifted_to_parked() -> None:
    world = opened()
    world.begin(call())
    journal = world.journal()
    runs.quarantine(journal, "run")
    runs.quarantine(journal, "run")
    world.keep(journal)
    assert [e.type for e in world.entries[-2:]] == ["grant_revoked", "run_quarantined"]
    with pytest.raises(Quarantined):
        require_holder(world.loaded(), agent(), 1)
    with pytest.raises(Quarantined):
        world.resume(agent("k2"), takeover=True)
    journal = world.journal()
    runs.release(journal)
    world.keep(journal)
    assert world.state is RunState.PARKED
    with pytest.raises(InvalidRequest):
        runs.release(world.journal())


def test_an_ended_run_is_not_quarantined() -> None:
    world = opened()
    world.end()
    journal = world.journal()
    runs.quarantine(journal, "agent")
    assert journal.entries == []


@pytest.mark.parametrize(("kind", "name"), [("agent", "agent"), ("workload", workload().id)])
def test_a_quarantined_agent_or_workload_acts_in_no_run(kind: str, name: str) -> None:
    world = opened()
    world.quarantines = (Quarantine("acme", kind, name, START),)
    with pytest.raises(Quarantined, match=name):
        require_holder(world.loaded(), agent(), 1)
    world.quarantines = (Quarantine("acme", kind, name, START, released_at=START + 1),)
    with pytest.raises(Quarantined):
        require_holder(world.loaded(), agent(), 1)
    world.now += 1
    require_holder(world.loaded(), agent(), 1)
