"""How a step ends."""

import pytest

from fakes.world import World, agent, allow, call
from stepgrant import canonical
from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.calls import Ready
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.errors import (
    InvalidRequest,
    StaleEpoch,
    StepDrift,
    StepInDoubt,
    TooLarge,
    UnknownStep,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import FailStatus, GrantStatus, IdSource, Step, StepState
from unit.domain.doubts import doubtful


@pytest.fixture
def world() -> World:
    world = World(limits=Limits(lease_ms=3000))
    world.open()
    return world


def test_complete_records_the_result_and_revokes_the_grant(world: World) -> None:
    world.begin(call())
    step = world.complete()
    assert (step.state, world.grant().status, world.grant().cause) == (
        StepState.COMPLETED,
        GrantStatus.REVOKED,
        "completed",
    )


def test_the_same_result_again_changes_nothing_another_is_drift(world: World) -> None:
    world.begin(call())
    world.complete()
    before = len(world.entries)
    world.complete()
    assert len(world.entries) == before
    with pytest.raises(StepDrift):
        world.complete(result=b'"other"')
    assert len(world.entries) == before


def test_a_withheld_result_completes_the_step_without_a_result(world: World) -> None:
    world.begin(call())
    journal = world.journal()
    step = outcomes.complete(journal, "s1", 1, Result(None, withheld=True))
    assert (step.state, step.result_c, step.withheld) == (StepState.COMPLETED, None, True)


@pytest.mark.parametrize("report", ["complete", "fail", "suspend"])
def test_only_a_started_attempt_of_this_epoch_is_reported(world: World, report: str) -> None:
    def act(attempt: int = 1) -> Step:
        if report == "complete":
            return world.complete(attempt=attempt)
        if report == "fail":
            return outcomes.fail(world.journal(), "s1", attempt, FailStatus.FAILED, None)
        return outcomes.suspend(world.journal(), "s1", attempt)

    with pytest.raises(UnknownStep):
        outcomes.complete(world.journal(), "s1", 1, Result(b"1"))
    world.begin(call(effect=Effect.READ), act=False)
    with pytest.raises(InvalidRequest, match="only a started attempt"):
        act()
    world.begin(call(effect=Effect.READ))
    with pytest.raises(InvalidRequest, match="attempt 2"):
        act(2)
    world.lapse()
    world.resume(agent("k2", now=world.now))
    before = len(world.entries)
    with pytest.raises(StaleEpoch):
        act()
    assert len(world.entries) == before


def test_the_successor_cannot_complete_what_is_in_doubt(world: World) -> None:
    doubtful(world)
    with pytest.raises(StepInDoubt):
        world.complete()
    assert world.step().state is StepState.IN_DOUBT


def test_unknown_for_a_once_step_is_doubt_not_failure(world: World) -> None:
    world.begin(call())
    world.redeem()
    step = world.fail(FailStatus.UNKNOWN)
    assert (step.state, step.doubt) == (StepState.IN_DOUBT, "tool_raised")
    assert world.fail(FailStatus.UNKNOWN).state is StepState.IN_DOUBT


def test_unknown_with_a_provably_unused_grant_did_not_happen(world: World) -> None:
    world.begin(call())
    step = world.fail(FailStatus.UNKNOWN)
    assert (step.state, step.fail_status) == (StepState.FAILED, FailStatus.NOT_EXECUTED)


def test_unknown_for_an_idempotent_step_is_tried_again_under_the_same_key(world: World) -> None:
    world.begin(call(effect=Effect.IDEMPOTENT))
    world.redeem()
    key = world.step().idempotency_key
    assert world.fail(FailStatus.UNKNOWN).fail_status is FailStatus.UNKNOWN
    outcome = world.begin(call(effect=Effect.IDEMPOTENT))
    assert isinstance(outcome, Ready)
    assert (outcome.step.attempt, outcome.step.idempotency_key) == (2, key)


def test_the_same_failure_again_changes_nothing(world: World) -> None:
    world.begin(call())
    world.fail(FailStatus.FAILED)
    before = len(world.entries)
    world.fail(FailStatus.FAILED)
    assert len(world.entries) == before


def test_suspending_an_unused_step_lets_it_start_again_and_a_used_one_is_doubt(world: World) -> None:
    world.begin(call("a"))
    world.suspend("a")
    assert world.grant("a").status is GrantStatus.REVOKED
    assert isinstance(world.begin(call("a")), Ready)
    world.begin(call("b"), allow(redeem=RedeemMode.OPTIONAL))
    assert world.suspend("b").state is StepState.SUSPENDED
    before = len(world.entries)
    world.suspend("b")
    assert len(world.entries) == before
    world.begin(call("b"), allow(redeem=RedeemMode.OPTIONAL))
    assert world.step("b").state is StepState.IN_DOUBT
    with pytest.raises(StepInDoubt):
        world.suspend("b")


def test_a_suspended_step_can_still_be_completed_by_its_holder(world: World) -> None:
    world.begin(call(), allow(redeem=RedeemMode.OPTIONAL))
    world.suspend()
    assert world.complete().state is StepState.COMPLETED


def test_a_recorded_step_gives_the_first_result_back(world: World) -> None:
    preimage = canonical.action_bytes("plan", None, {})

    def record(name: str = "plan", result: bytes = b'"a"') -> tuple[Step, bool]:
        journal = world.journal()
        step, known = outcomes.record(
            journal, "p", name=name, digest_preimage=preimage, id_source=IdSource.EXPLICIT, result=Result(result)
        )
        world.hold(journal)
        return step, known

    first, known = record()
    assert (first.state, known) == (StepState.RECORDED, False)
    again, known = record(result=b'"b"')
    assert (again.result_c, known) == (first.result_c, True)
    with pytest.raises(StepDrift):
        record("other")
    with pytest.raises(StepDrift, match="recorded step"):
        world.begin(call("p"))


def test_a_nested_recorded_step_knows_its_parent(world: World) -> None:
    journal = world.journal()
    step, _ = outcomes.record(
        journal, "a~b", name="n", digest_preimage=b"{}", id_source=IdSource.ORDINAL, result=Result(None)
    )
    assert (step.parent, step.result_c) == ("a", None)


def test_a_large_result_is_refused_before_anything_happens() -> None:
    outcomes.refuse_large(Result(b"1234"), Limits(max_result_bytes=4))
    outcomes.refuse_large(Result(None), Limits(max_result_bytes=4))
    with pytest.raises(TooLarge):
        outcomes.refuse_large(Result(b"12345"), Limits(max_result_bytes=4))
