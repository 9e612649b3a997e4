"""A restore: the epoch jumps, nothing counts as unused, what may have begun is in doubt, the log gets a new name."""

from __future__ import annotations

import pytest

from fakes.lost_calls import crash, lost, used
from fakes.world import LOGIN, World, agent, allow, ask_people, call
from stepgrant_broker.domain import outcomes, restoring, runs
from stepgrant_broker.domain.calls import Doubtful
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import Quarantined, StaleEpoch
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.journal import By
from stepgrant_broker.domain.state import ApprovalStatus, FailStatus, GrantStatus, IdSource, RunState, StepState

ORIGIN = "broker.example/log/r1"


def opened() -> World:
    world = World()
    world.open()
    return world


def restore(world: World, origin: str = ORIGIN) -> list[str]:
    """Restore; the types of the entries that say so."""
    journal = world.journal(By("person", "local administrator"))
    runs.restore(journal, origin)
    world.keep(journal)
    return [entry.type.value for entry in journal.entries]


def release(world: World) -> None:
    journal = world.journal()
    runs.release(journal)
    world.keep(journal)


def test_the_run_is_quarantined_under_an_epoch_that_nobody_can_have() -> None:
    world = opened()
    assert restore(world) == ["run_restored", "run_quarantined"]
    run = world.view.run
    assert run is not None
    assert (run.state, run.epoch, run.park_reason) == (RunState.QUARANTINED, 1_000_001, "restored")
    told, stopped = world.entries[-2:]
    assert (told.fields["epoch"], told.fields["cause"]) == (1_000_001, "restored")
    assert told.fields["body"] == {"from_epoch": 1, "origin": ORIGIN}
    assert (stopped.fields["body"], stopped.fields["by"]["kind"]) == ({"by": "restored"}, "person")


@pytest.mark.parametrize("epoch", [1, 2, 7, 999_999, 1_000_000])
def test_a_holder_of_the_lost_time_gets_nothing(epoch: int) -> None:
    """It may have opened epochs that this store has never seen."""
    world = opened()
    restore(world)
    with pytest.raises(Quarantined):
        require_holder(world.loaded(), agent(), epoch)
    release(world)
    with pytest.raises(StaleEpoch):
        require_holder(world.loaded(), agent(), epoch)
    world.resume(agent("k9"))
    assert world.epoch == 1_000_002
    with pytest.raises(StaleEpoch):
        require_holder(world.loaded(), agent("k9"), epoch)


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.IDEMPOTENT])
def test_a_grant_that_was_not_redeemed_here_may_have_been_redeemed_there(effect: Effect) -> None:
    """Parking gives such a step back as provably unused; after a restore that is a guess, so it is in doubt."""
    world = opened()
    world.begin(call(effect=effect), allow(effect))
    assert restore(world) == ["grant_revoked", "step_in_doubt", "run_restored", "run_quarantined"]
    assert world.step().state is StepState.IN_DOUBT
    assert world.step().doubt == "restored"
    assert world.grant().status is GrantStatus.REVOKED
    assert world.entries[-4].fields["body"] == {"unused": False, "confirmed": True}
    assert world.view.run is not None
    assert world.view.run.history.in_flight == 0


def test_a_suspended_step_is_in_doubt_too() -> None:
    world = opened()
    world.begin(call())
    world.suspend()
    restore(world)
    assert world.step().state is StepState.IN_DOUBT


def test_an_intent_may_have_become_a_login() -> None:
    world = opened()
    world.begin(call(), issuer=LOGIN)
    assert world.grant().status is GrantStatus.INTENT
    restore(world)
    assert (world.grant().status, world.step().state) == (GrantStatus.REVOKED, StepState.IN_DOUBT)
    assert world.grant().confirmed_at is None


def test_a_read_in_flight_is_read_again() -> None:
    world = opened()
    world.begin(call(effect=Effect.READ))
    restore(world)
    assert (world.step().state, world.grant().status) == (StepState.STARTED, GrantStatus.REVOKED)


def test_a_once_step_that_was_not_begun_here_may_have_been_done_there() -> None:
    world = opened()
    world.begin(call("ready"), act=False)
    world.begin(call("waits", resource="order/2"), ask_people())
    world.begin(call("tried", resource="order/3"))
    world.fail(FailStatus.NOT_EXECUTED, "tried")
    restore(world)
    assert {key: step.state for key, step in world.view.steps.items()} == dict.fromkeys(
        ("ready", "waits", "tried"), StepState.IN_DOUBT
    )
    release(world)
    world.resume(agent("k2"))
    found = world.begin(call("ready", epoch=world.epoch), who=agent("k2"))
    assert isinstance(found, Doubtful)


@pytest.mark.parametrize("effect", [Effect.READ, Effect.IDEMPOTENT])
def test_what_may_happen_twice_and_was_not_begun_stays_as_it_is(effect: Effect) -> None:
    world = opened()
    world.begin(call(effect=effect), allow(effect), act=False)
    restore(world)
    assert world.step().state is StepState.PREPARED


def test_what_has_its_outcome_keeps_it() -> None:
    world = opened()
    world.begin(call("done"))
    world.redeem("done")
    world.complete("done")
    world.begin(call("failed"))
    world.redeem("failed")
    world.fail(FailStatus.FAILED, "failed")
    before = dict(world.view.steps)
    assert restore(world) == ["run_restored", "run_quarantined"]
    assert dict(world.view.steps) == before


def test_a_person_settles_the_doubt_after_the_release() -> None:
    world = opened()
    world.begin(call())
    restore(world)
    release(world)
    journal = world.journal(By("person", "ann"))
    said = outcomes.Verdict(1, "done", outcomes.Result(b'"ok"'))
    outcomes.reconcile(journal, "s1", said, world.limits, operator="opr_ann")
    world.keep(journal)
    assert world.step().state is StepState.COMPLETED


def test_what_was_never_begun_here_is_settled_by_a_person_too() -> None:
    """There is no grant behind this doubt, and so nothing to be taken back."""
    world = opened()
    world.begin(call(), act=False)
    restore(world)
    assert (world.step().state, world.step().grant) == (StepState.IN_DOUBT, None)
    release(world)
    journal = world.journal(By("person", "ann"))
    said = outcomes.Verdict(1, "not_done", outcomes.Result(None))
    outcomes.reconcile(journal, "s1", said, world.limits, operator="opr_ann")
    assert [entry.type.value for entry in journal.entries] == ["step_reconciled"]
    world.keep(journal)
    assert (world.step().state, world.step().fail_status) == (StepState.FAILED, FailStatus.NOT_EXECUTED)


def test_what_has_no_outcome_of_its_own_or_is_in_doubt_already_is_not_put_in_doubt() -> None:
    """A recorded step released nothing, another name is told of by its step, and a doubt keeps why it came up."""
    world = opened()
    journal = world.journal()
    source, result = IdSource.EXPLICIT, outcomes.Result(b"1")
    outcomes.record(journal, "plan", name="plan", digest_preimage=b"{}", id_source=source, result=result)
    world.keep(journal)
    used(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    before = dict(world.view.steps)
    assert (before["old"].doubt, before["new"].same_as) == ("fenced", "old")
    assert restore(world) == ["run_restored", "run_quarantined"]
    assert dict(world.view.steps) == before


@pytest.mark.parametrize("answered", ["answered", "open"])
def test_no_answer_of_before_counts(answered: str) -> None:
    """It may have been spent in the lost part."""
    world = opened()
    world.begin(call(), ask_people())
    if answered == "answered":
        world.answer()
    restore(world)
    assert world.approval().status is ApprovalStatus.VOID


def test_an_approval_that_a_grant_spent_does_not_come_back() -> None:
    world = opened()
    world.begin(call(), ask_people())
    world.answer()
    world.begin(call(), ask_people())
    assert world.approval().status is ApprovalStatus.CONSUMED
    restore(world)
    assert world.approval().status is ApprovalStatus.CONSUMED


def test_a_denial_stands() -> None:
    world = opened()
    world.begin(call(), ask_people())
    world.answer("deny")
    restore(world)
    assert world.approval().status is ApprovalStatus.DENIED


@pytest.mark.parametrize("stopped", ["parked", "quarantined"])
def test_a_run_that_nobody_held_is_restored_as_well(stopped: str) -> None:
    world = opened()
    if stopped == "parked":
        world.park()
    else:
        journal = world.journal()
        runs.quarantine(journal, "run")
        world.keep(journal)
    assert restore(world) == ["run_restored", "run_quarantined"]
    assert (world.state, world.epoch) == (RunState.QUARANTINED, 1_000_001)


def test_an_ended_run_stays_ended() -> None:
    world = opened()
    world.end()
    assert restore(world) == []
    assert (world.state, world.epoch) == (RunState.COMPLETED, 1)


def test_twice_restored_is_twice_as_far() -> None:
    world = opened()
    restore(world)
    restore(world, "broker.example/log/r2")
    assert world.epoch == 2_000_001


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("origins", "name"),
    [
        (("broker.example/log",), "broker.example/log/r1"),
        (("broker.example/log/r1",), "broker.example/log/r2"),
        (("broker.example/log", "broker.example/log/r4"), "broker.example/log/r5"),
        (("broker.example/log/r2", "broker.example/log"), "broker.example/log/r3"),
        (("broker.example/log/r0",), "broker.example/log/r0/r1"),
    ],
)
def test_each_restore_has_a_name_that_was_never_used(origins: tuple[str, ...], name: str) -> None:
    assert restoring.name_after(*origins) == name
    assert all(restoring.follows(name, known) for known in origins)


@pytest.mark.parametrize(
    ("origin", "known"),
    [("a/log", "a/log"), ("a/log", "a/log/r1"), ("a/log/r1", "a/log/r1"), ("b/log/r2", "a/log"), ("a/log/r", "a/log")],
)
def test_another_name_follows_nothing(origin: str, known: str) -> None:
    assert not restoring.follows(origin, known)
