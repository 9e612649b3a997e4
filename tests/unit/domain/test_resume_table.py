"""The test of the table is the table (`protocol.md` §4), written out as it stands there."""

import pytest

from changing import replace
from fakes.world import AUDIENCE, World, agent, allow, ask_people, call
from stepgrant_broker.domain.calls import Doubtful, Ready, Replayed
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.resume_table import TABLE, Last, Next, classify, next_for
from stepgrant_broker.domain.state import FailStatus, GrantStatus, StepState

DECIDE, SAME, NEW = Next.DECIDE, Next.DECIDE_SAME_ATTEMPT, Next.DECIDE_NEW_ATTEMPT
RETRY, FAILURE, DOUBT, RESULT = Next.RETRY_IF_ALLOWED, Next.RECORDED_FAILURE, Next.DOUBT, Next.RECORDED_RESULT

PROTOCOL = {
    #                              read    idempotent  once
    Last.NOTHING_GRANTED:         (DECIDE, DECIDE,     DECIDE),
    Last.UNUSED:                  (SAME,   SAME,       SAME),
    Last.PERHAPS_USED:            (NEW,    NEW,        DOUBT),
    Last.NOT_EXECUTED:            (NEW,    NEW,        NEW),
    Last.FAILED:                  (RETRY,  RETRY,      FAILURE),
    Last.AWAITING:                (DECIDE, DECIDE,     DECIDE),
    Last.SUSPENDED_UNUSED:        (SAME,   SAME,       SAME),
    Last.SUSPENDED_PERHAPS_USED:  (NEW,    NEW,        DOUBT),
    Last.IN_DOUBT:                (DOUBT,  DOUBT,      DOUBT),
    Last.COMPLETED:               (RESULT, RESULT,     RESULT),
}  # fmt: skip


def test_the_table_is_the_protocols_table() -> None:
    assert {last: tuple(TABLE[last][effect] for effect in Effect) for last in Last} == PROTOCOL


def _bring_to(world: World, last: Last, effect: Effect) -> None:
    """Bring step s1 to this row by real acts, under epoch 1, and crash."""
    what = call(effect=effect)
    if last is Last.NOTHING_GRANTED:
        world.begin(what, act=False)
        return
    if last is Last.AWAITING:
        world.begin(what, ask_people(effect))
        return
    redeem = "required" if last in {Last.UNUSED, Last.SUSPENDED_UNUSED} else "optional"
    world.begin(what, allow(effect, redeem=RedeemMode(redeem)))
    if last in {Last.SUSPENDED_UNUSED, Last.SUSPENDED_PERHAPS_USED}:
        world.suspend()
    if last is Last.NOT_EXECUTED:
        world.fail(FailStatus.NOT_EXECUTED)
    if last is Last.FAILED:
        world.fail(FailStatus.FAILED)
    if last is Last.COMPLETED:
        world.complete()


@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("last", [last for last in Last if last is not Last.IN_DOUBT])
def test_a_resumed_run_does_with_each_step_what_the_table_says(last: Last, effect: Effect) -> None:
    world = World()
    world.open()
    _bring_to(world, last, effect)
    attempt = world.step().attempt
    world.lapse()
    world.resume(agent("k2", now=world.now))
    world.now += 400_000  # long after every credential of epoch 1 is dead
    world.lease_until = world.now + 30_000
    outcome = world.begin(call(epoch=2, effect=effect), who=agent("k2", now=world.now))
    match PROTOCOL[last][list(Effect).index(effect)]:
        case Next.DECIDE | Next.DECIDE_SAME_ATTEMPT:
            assert isinstance(outcome, Ready)
            assert outcome.step.attempt == attempt
        case Next.DECIDE_NEW_ATTEMPT:
            assert isinstance(outcome, Ready)
            assert outcome.step.attempt == attempt + 1
        case Next.DOUBT:
            assert isinstance(outcome, Doubtful)
            assert world.step().state is StepState.IN_DOUBT
        case Next.RETRY_IF_ALLOWED | Next.RECORDED_FAILURE:
            assert isinstance(outcome, Replayed)
            assert outcome.step.state is StepState.FAILED
        case Next.RECORDED_RESULT:
            assert isinstance(outcome, Replayed)
            assert outcome.step.state is StepState.COMPLETED


@pytest.mark.parametrize("effect", [Effect.READ, Effect.IDEMPOTENT])
def test_a_failure_is_tried_again_only_if_the_tool_allows_it(effect: Effect) -> None:
    world = World()
    world.open()
    world.begin(call(effect=effect, retry_failed=True))
    key = world.step().idempotency_key
    world.fail(FailStatus.FAILED)
    outcome = world.begin(call(effect=effect, retry_failed=True))
    assert isinstance(outcome, Ready)
    assert (outcome.step.attempt, outcome.step.idempotency_key) == (2, key)


def test_a_once_step_that_failed_is_not_tried_again_even_if_the_tool_wants_it() -> None:
    world = World()
    world.open()
    world.begin(call(retry_failed=True))
    world.fail(FailStatus.FAILED)
    assert isinstance(world.begin(call(retry_failed=True)), Replayed)
    assert world.step().attempt == 1


def test_resume_revokes_what_the_old_epoch_held() -> None:
    world = World()
    world.open()
    world.begin(call())
    world.lapse()
    world.resume(agent("k2", now=world.now))
    grant = world.grant()
    assert (grant.status, grant.cause, grant.audience) == (GrantStatus.REVOKED, "fenced", AUDIENCE)


def test_an_unknown_outcome_of_an_idempotent_step_counts_as_perhaps_used() -> None:
    world = World()
    world.open()
    world.begin(call(effect=Effect.IDEMPOTENT))
    world.redeem()
    world.fail(FailStatus.UNKNOWN)
    step = world.step()
    assert classify(step, unused=False) is Last.PERHAPS_USED
    assert next_for(step, step.effect, unused=False) is Next.DECIDE_NEW_ATTEMPT


def test_a_step_that_is_only_another_name_has_no_row() -> None:
    world = World()
    world.open()
    world.begin(call(), act=False)
    with pytest.raises(LookupError):
        classify(replace(world.step(), state=StepState.ADOPTED), unused=False)
