"""Calls that may be a completed step once more: who is asked, what policy and people may say, and that it lasts."""

from __future__ import annotations

import pytest

from changing import replace
from fakes.lost_calls import crash, done, lost, named, types, used
from fakes.world import World, agent, allow, ask_people, call
from stepgrant import canonical
from stepgrant_broker.domain import duplicates, policy_input
from stepgrant_broker.domain.calls import Ask, Ready, Refusal, Replayed, Suspected, Waiting
from stepgrant_broker.domain.decisions import Deny, Effect
from stepgrant_broker.domain.errors import InvalidRequest, StepDrift, UnknownStep
from stepgrant_broker.domain.journal import By
from stepgrant_broker.domain.outcomes import Result, Verdict, reconcile
from stepgrant_broker.domain.state import ApprovalStatus, FailStatus, Step, StepState


@pytest.fixture
def world() -> World:
    made = World()
    made.open()
    return made


def say(world: World, key: str, verdict: str, note: str | None = None) -> Step:
    """A person's word on a suspected duplicate."""
    journal = world.journal(By("person", "ann"))
    step = duplicates.decide(journal, key, verdict, operator="opr_ann", note=note)
    world.keep(journal)
    return step


def test_a_call_that_equals_a_completed_step_is_asked_about(world: World) -> None:
    done(world, "old")
    crash(world)
    count = len(world.entries)
    settled = world.begin(lost("new", 2))
    assert settled == Suspected(world.step("new"), "old")
    assert types(world, count) == ["step_prepared", "decision"]
    prepared, decision = (entry.fields for entry in world.entries[count:])
    assert (prepared["body"]["duplicate_of"], decision["body"]["duplicate"]) == ("old", "ask")
    assert (world.step("new").state, world.step("new").grant) == (StepState.PREPARED, None)
    assert world.begin(lost("new", 2)) == Suspected(world.step("new"), "old")


def test_nobody_is_asked_to_approve_what_may_be_a_duplicate(world: World) -> None:
    done(world, "old")
    crash(world)
    assert isinstance(world.begin(lost("new", 2), ask_people()), Suspected)
    assert (world.view.approvals, world.step("new").state) == ({}, StepState.PREPARED)


def test_a_denial_is_a_denial(world: World) -> None:
    done(world, "old")
    crash(world)
    assert isinstance(world.begin(lost("new", 2), Deny(("no",))), Refusal)
    assert world.step("new").duplicate_of == "old"
    assert isinstance(world.begin(lost("new", 2)), Suspected)


@pytest.mark.parametrize("how", ["in this epoch", "given again", "another id source", "adopted"])
def test_what_is_no_duplicate(world: World, how: str) -> None:
    if how == "another id source":
        world.begin(call("old"))
        world.complete("old")
    elif how == "adopted":
        used(world, "old", effect=Effect.IDEMPOTENT)
    else:
        done(world, "old")
    effect = Effect.IDEMPOTENT if how == "adopted" else Effect.ONCE
    if how != "in this epoch":
        crash(world)
    if how == "given again":
        assert isinstance(world.begin(lost("old", 2)), Replayed)
    if how == "adopted":
        world.begin(lost("first", 2, effect))
        world.redeem("old")
        world.complete("old")
    assert named(world.begin(lost("new", world.epoch, effect))) == "new"
    assert world.step("new").duplicate_of is None


def test_only_call_ids_are_asked_about(world: World) -> None:
    done(world, "old")
    crash(world)
    assert named(world.begin(call("new", epoch=2))) == "new"
    assert world.step("new").duplicate_of is None


def test_a_doubt_that_was_taken_up_and_settled_is_no_question_for_the_next_call(world: World) -> None:
    used(world, "old")
    crash(world)
    world.begin(lost("first", 2))
    journal = world.journal()
    reconcile(journal, "old", Verdict(1, "done", Result(b"1")), world.limits, operator="opr_ann")
    world.hold(journal)
    assert isinstance(world.begin(lost("second", 2)), Ready)


def test_what_was_started_is_no_question_any_more(world: World) -> None:
    done(world, "old")
    crash(world)
    world.begin(lost("new", 2), allow(duplicate="run"))
    world.fail(FailStatus.NOT_EXECUTED, "new")
    assert isinstance(world.begin(lost("new", 2), Deny(("later",))), Refusal)
    assert world.step("new").state is StepState.DENIED
    assert isinstance(world.begin(lost("new", 2)), Ready)


def test_nobody_has_to_approve_what_turned_out_to_be_the_completed_step(world: World) -> None:
    done(world, "old")
    crash(world)
    asked = replace(ask_people(), grant=allow(duplicate="run").grant)
    assert isinstance(world.begin(lost("new", 2), asked), Waiting)
    assert isinstance(world.begin(lost("new", 2), allow(duplicate="replay")), Replayed)
    assert world.approval().status is ApprovalStatus.VOID
    assert (world.step("new").state, world.step("new").same_as) == (StepState.ADOPTED, "old")


def test_a_question_is_void_once_the_completed_step_was_given_again_by_itself(world: World) -> None:
    done(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    assert isinstance(world.begin(lost("old", 2)), Replayed)
    assert isinstance(world.begin(lost("new", 2)), Ready)


def test_policy_may_say_that_it_is_the_completed_one(world: World) -> None:
    done(world, "old")
    crash(world)
    count = len(world.entries)
    settled = world.begin(lost("new", 2), allow(duplicate="replay"))
    assert isinstance(settled, Replayed)
    assert (settled.step.key, settled.step.result_c) == ("old", world.step("old").result_c)
    assert types(world, count) == ["decision", "step_adopted", "step_replayed"]
    assert world.entries[count].fields["body"]["duplicate"] == "replay"
    assert named(world.begin(lost("next", 2), allow(duplicate="replay"))) == "next"


def test_policy_may_say_that_it_is_another_one(world: World) -> None:
    done(world, "old")
    crash(world)
    count = len(world.entries)
    assert isinstance(world.begin(lost("new", 2), allow(duplicate="run")), Ready)
    assert types(world, count) == ["step_prepared", "decision", "grant_issued"]
    assert world.step("new").duplicate_of == "old"
    assert world.entries[count + 1].fields["body"]["duplicate"] == "run"


def test_a_person_says_that_it_is_another_one(world: World) -> None:
    done(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    step = say(world, "new", "run", "both were ordered")
    assert (step.duplicate, step.state) == ("run", StepState.PREPARED)
    assert isinstance(world.begin(lost("new", 2), ask_people()), Waiting)
    assert isinstance(world.begin(lost("new", 2)), Ready)


def test_a_person_says_that_it_is_the_completed_one(world: World) -> None:
    done(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    step = say(world, "new", "replay")
    assert (step.state, step.same_as) == (StepState.ADOPTED, "old")
    settled = world.begin(lost("new", 2))
    assert isinstance(settled, Replayed)
    assert (settled.step.key, settled.step.replayed_epoch, settled.step.duplicate) == ("old", 2, "replay")


@pytest.mark.parametrize("verdict", ["replay", "run"])
def test_an_answer_is_not_lost_with_the_next_id(world: World, verdict: str) -> None:
    """A framework that gets new ids at every resume would be asked for ever."""
    done(world, "old")
    crash(world)
    world.begin(lost("second", 2))
    crash(world)
    assert named(world.begin(lost("third", 3))) == "second"
    say(world, "second", verdict)
    crash(world)
    settled = world.begin(lost("fourth", 4))
    assert isinstance(settled, Replayed if verdict == "replay" else Ready)
    assert settled.step.key == ("old" if verdict == "replay" else "second")
    assert named(world.begin(lost("fifth", 4))) == "fifth"


def test_an_answer_stands_at_every_later_resume(world: World) -> None:
    """Two completed calls that are asked again each time: with answers used up, one of them would always be asked."""
    for key, order in (("a", "order/1"), ("b", "order/2")):
        done(world, key, resource=order)
    crash(world)
    for key, order in (("a2", "order/1"), ("b2", "order/2")):
        world.begin(lost(key, 2, resource=order))
        say(world, key, "replay")
    for epoch in (3, 4):
        crash(world)
        for key, order in (("a", "order/1"), ("b", "order/2")):
            settled = world.begin(lost(f"{key}{epoch}", epoch, resource=order))
            assert isinstance(settled, Replayed)
            assert settled.step.key == key
    assert named(world.begin(lost("more", 4, resource="order/1"))) == "more"


def test_an_answer_counts_for_a_retry_of_the_same_epoch_too(world: World) -> None:
    """Its holder asked again under a new id, instead of waiting for the answer."""
    done(world, "old")
    crash(world)
    world.begin(lost("second", 2))
    say(world, "second", "replay")
    assert isinstance(world.begin(lost("third", 2)), Replayed)


def test_who_answers_is_asked_something(world: World) -> None:
    done(world, "old")
    crash(world)
    with pytest.raises(UnknownStep):
        say(world, "new", "run")
    with pytest.raises(InvalidRequest, match="nobody asks"):
        say(world, "old", "run")
    world.begin(lost("new", 2))
    with pytest.raises(InvalidRequest, match="replay or run"):
        say(world, "new", "perhaps")
    say(world, "new", "run")
    with pytest.raises(InvalidRequest, match="nobody asks"):
        say(world, "new", "replay")
    world.begin(lost("other", 2))
    say(world, "other", "replay")
    with pytest.raises(StepDrift, match="goes on as step old"):
        say(world, "other", "run")


def test_other_arguments_before_anything_was_started_are_another_question(world: World) -> None:
    done(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    assert isinstance(world.begin(lost("new", 2, args={"amount": 9})), Ready)
    assert world.step("new").duplicate_of is None


def test_policy_sees_which_step_it_equals_and_nothing_otherwise(world: World) -> None:
    done(world, "old")
    crash(world)
    what = lost("new", 2)
    for equal_to in ("old", None):
        ask = Ask(1, 1, new=True, previous_outcome=None, equal_to=equal_to)
        document = canonical.loads(policy_input.for_step(world.journal(), agent(), what, ask, None, None))
        assert isinstance(document, dict)
        step = {"key": "new", "attempt": 1, "previous_outcome": None}
        assert document["step"] == (step if equal_to is None else {**step, "equal_to": "old"})
