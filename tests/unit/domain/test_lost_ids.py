"""Calls that come back under another id: what they become, what they wait for, and what they never are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakes.lost_calls import crash, lost, named, types, used
from fakes.world import World
from stepgrant_broker.domain.calls import Doubtful, Ready, Replayed
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import InvalidRequest, StepDrift
from stepgrant_broker.domain.outcomes import Result, Verdict, complete, fail, reconcile, suspend
from stepgrant_broker.domain.state import FailStatus, IdSource, StepState


@pytest.fixture
def world() -> World:
    made = World()
    made.open()
    return made


# ------------------------------------------------------------------------------------------------------------ adoption


def test_a_call_becomes_the_equal_step_that_was_left_in_doubt(world: World) -> None:
    used(world, "old")
    crash(world)
    count, before = len(world.entries), world.view.run

    settled = world.begin(lost("new", 2))

    assert (named(settled), isinstance(settled, Doubtful) and settled.blocked) == ("old", False)
    assert types(world, count) == ["step_adopted"]
    entry = world.entries[-1].fields
    assert (entry["step"], entry["epoch"], entry["body"]) == ("new", 2, {"from": "old"})
    assert (world.step("new").state, world.step("new").same_as) == (StepState.ADOPTED, "old")
    assert (world.step("old").state, world.step("old").adopted_epoch) == (StepState.IN_DOUBT, 2)
    assert before is not None
    assert world.step("new").position == before.step_count + 1


def test_the_other_name_stays_one(world: World) -> None:
    used(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    count = len(world.entries)
    assert named(world.begin(lost("new", 2))) == "old"
    crash(world)
    count = len(world.entries)
    assert named(world.begin(lost("new", 3))) == "old"
    assert "step_adopted" not in types(world, count)


def test_an_idempotent_step_goes_on_under_its_idempotency_key(world: World) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    key = world.step("old").idempotency_key
    crash(world)
    settled = world.begin(lost("new", 2, Effect.IDEMPOTENT))
    assert isinstance(settled, Ready)
    assert (settled.step.key, settled.step.attempt, settled.step.idempotency_key) == ("old", 2, key)
    assert settled.grant is not None
    assert settled.grant.step == "old"
    world.redeem("old")
    assert world.complete("old").state is StepState.COMPLETED
    assert isinstance(world.begin(lost("new", 2, Effect.IDEMPOTENT)), Replayed)


@pytest.mark.parametrize("end", ["suspended", "unknown"])
def test_an_idempotent_step_without_an_outcome_is_one_too(world: World, end: str) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    _ = world.suspend("old") if end == "suspended" else world.fail(FailStatus.UNKNOWN, "old")
    crash(world)
    assert named(world.begin(lost("new", 2, Effect.IDEMPOTENT))) == "old"


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.IDEMPOTENT])
def test_never_within_one_epoch(world: World, effect: Effect) -> None:
    """There both calls are meant: whoever made the second one knows of the first."""
    used(world, "one", effect=effect)
    crash(world)
    used(world, "two", 2, effect, args={"amount": 2}, resource="order/2")
    if effect is Effect.ONCE:
        world.fail(FailStatus.UNKNOWN, "two")
    settled = world.begin(lost("three", 2, effect, args={"amount": 2}, resource="order/2"))
    assert world.step("two").adopted_epoch == 0
    if effect is Effect.ONCE:
        assert settled == Doubtful(world.step("two"), blocked=True)
        assert "three" not in world.view.steps
    else:
        assert named(settled) == "three"
        assert world.step("three").same_as is None


def test_once_in_an_epoch(world: World) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    crash(world)
    assert named(world.begin(lost("first", 2, Effect.IDEMPOTENT))) == "old"
    assert named(world.begin(lost("second", 2, Effect.IDEMPOTENT))) == "second"
    assert world.step("second").idempotency_key != world.step("old").idempotency_key


def test_a_doubt_that_a_call_took_up_makes_the_next_one_wait(world: World) -> None:
    used(world, "old")
    crash(world)
    world.begin(lost("first", 2))
    count = len(world.entries)
    assert world.begin(lost("second", 2)) == Doubtful(world.step("old"), blocked=True)
    assert (len(world.entries), "second" in world.view.steps) == (count, False)


def test_two_that_were_left_are_taken_up_one_after_the_other(world: World) -> None:
    for key in ("a", "b"):
        used(world, key, effect=Effect.IDEMPOTENT)
    crash(world)
    calls = [lost(key, 2, Effect.IDEMPOTENT) for key in ("x", "y", "z")]
    assert [named(world.begin(one)) for one in calls] == ["a", "b", "z"]


def test_a_doubt_that_stays_is_taken_up_in_the_next_epoch_too(world: World) -> None:
    used(world, "old")
    crash(world)
    world.begin(lost("second", 2))
    crash(world)
    assert named(world.begin(lost("third", 3))) == "old"
    assert world.step("old").adopted_epoch == 3


def test_a_read_needs_nothing_of_that(world: World) -> None:
    world.begin(lost("old", 1, Effect.READ))
    crash(world)
    assert named(world.begin(lost("new", 2, Effect.READ))) == "new"


@pytest.mark.parametrize("source", [IdSource.EXPLICIT, IdSource.ORDINAL])
def test_only_call_ids_are_lost(world: World, source: IdSource) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    crash(world)
    assert named(world.begin(lost("new", 2, Effect.IDEMPOTENT, id_source=source))) == "new"


@pytest.mark.parametrize("other", [{"args": {"amount": 2}}, {"tool": "other"}, {"resource": "order/2"}])
def test_only_an_equal_call(world: World, other: dict[str, object]) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    crash(world)
    assert named(world.begin(lost("new", 2, Effect.IDEMPOTENT, **other))) == "new"


@pytest.mark.parametrize("change", [{"effect": Effect.IDEMPOTENT}, {"idempotency_key": "mine"}])
def test_what_was_fixed_stays_fixed(world: World, change: dict[str, object]) -> None:
    used(world, "old")
    crash(world)
    count = len(world.entries)
    with pytest.raises(StepDrift):
        world.begin(lost("new", 2, **change))  # type: ignore[arg-type]
    assert (len(world.entries), "new" in world.view.steps) == (count, False)


def test_another_name_with_other_arguments_is_drift(world: World) -> None:
    used(world, "old")
    crash(world)
    world.begin(lost("new", 2))
    with pytest.raises(StepDrift, match="started with another action"):
        world.begin(lost("new", 2, args={"amount": 2}))


def test_a_step_ends_under_its_own_name_only(world: World) -> None:
    used(world, "old", effect=Effect.IDEMPOTENT)
    crash(world)
    world.begin(lost("new", 2, Effect.IDEMPOTENT))
    journal = world.journal()
    said = Verdict(2, "done", Result(b"1"))
    acts: tuple[Callable[[], object], ...] = (
        lambda: complete(journal, "new", 2, Result(b"1")),
        lambda: fail(journal, "new", 2, FailStatus.UNKNOWN, None),
        lambda: suspend(journal, "new", 2),
        lambda: reconcile(journal, "new", said, world.limits, operator="opr_ann"),
    )
    for act in acts:
        with pytest.raises(StepDrift, match="goes on as step old"):
            act()
    assert journal.entries == []


def test_a_bad_key_is_refused_before_anything_is_adopted(world: World) -> None:
    used(world, "old")
    crash(world)
    with pytest.raises(InvalidRequest):
        world.begin(lost("~new", 2))
    assert world.step("old").adopted_epoch == 0


# ------------------------------------------------------------------------------------------------------------ blocking


@pytest.mark.parametrize("source", list(IdSource))
def test_a_doubt_blocks_new_steps_of_its_tool_and_resource(world: World, source: IdSource) -> None:
    """The same intention in other words: the model changed the memo."""
    used(world, "old")
    crash(world)
    count = len(world.entries)
    settled = world.begin(lost("new", 2, args={"amount": 1, "memo": "again"}, id_source=source))
    assert settled == Doubtful(world.step("old"), blocked=True)
    assert (len(world.entries), "new" in world.view.steps) == (count, False)


@pytest.mark.parametrize(
    "other", [{"resource": "order/2"}, {"tool": "other"}, {"effect": Effect.IDEMPOTENT}, {"effect": Effect.READ}]
)
def test_other_steps_are_not_blocked(world: World, other: dict[str, object]) -> None:
    used(world, "old")
    crash(world)
    assert named(world.begin(lost("new", 2, **{"args": {"amount": 2}, **other}))) == "new"  # type: ignore[arg-type]


def test_within_its_epoch_a_doubt_blocks_its_equal_and_nothing_else(world: World) -> None:
    """A model that is told of an error asks again, under a new id."""
    used(world, "one")
    world.fail(FailStatus.UNKNOWN, "one")
    assert world.begin(lost("again", 1)) == Doubtful(world.step("one"), blocked=True)
    assert named(world.begin(lost("other", 1, args={"amount": 2}))) == "other"


def test_a_settled_doubt_blocks_nothing(world: World) -> None:
    used(world, "old")
    crash(world)
    journal = world.journal()
    reconcile(journal, "old", Verdict(1, "not_done", Result(None)), world.limits, operator="opr_ann")
    world.hold(journal)
    assert named(world.begin(lost("new", 2, args={"amount": 2}))) == "new"
