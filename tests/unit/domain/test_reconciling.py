"""When a doubt may be settled, and by whom."""

import pytest

from fakes.world import STATIC, World, agent, ask_people, call
from stepgrant_broker.domain import outcomes
from stepgrant_broker.domain.calls import Ready
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    InvalidRequest,
    PriorCredentialLive,
)
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import FailStatus, IdSource, Step, StepState
from unit.domain.doubts import doubtful

LOOK = "s1~reconcile~1"


@pytest.fixture
def world() -> World:
    world = World(limits=Limits(lease_ms=3000))
    world.open()
    return world


def look(world: World, key: str = LOOK, tool: str = "pay.reconcile") -> None:
    """The hook's own step, done."""
    world.begin(call(key, epoch=2, tool=tool, effect=Effect.READ), who=agent("k2", now=world.now))
    world.complete(key)


def reconcile(
    world: World, verdict: str, via: str | None = LOOK, operator: str | None = None, attempt: int = 1
) -> Step:
    journal = world.journal()
    said = Verdict(attempt, verdict, Result(b'"found"'), "seen", via)
    step = outcomes.reconcile(journal, "s1", said, world.limits, operator=operator)
    world.hold(journal)
    return step


def test_a_hooks_done_settles_the_doubt_at_once(world: World) -> None:
    doubtful(world)
    look(world)
    step = reconcile(world, "done")
    assert (step.state, step.reconciles) == (StepState.COMPLETED, 1)


def test_a_hooks_not_done_counts_only_after_the_old_credential_is_dead(world: World) -> None:
    doubtful(world, settle_ms=1000)
    dead = (world.grant().act_before or 0) + world.limits.leeway_ms
    world.now = dead + 999
    world.lease_until = world.now + 30_000
    look(world)
    before = len(world.entries)
    with pytest.raises(PriorCredentialLive) as early:
        reconcile(world, "not_done")
    assert early.value.retry_after_ms == 1
    assert len(world.entries) == before
    assert world.step().state is StepState.IN_DOUBT


def test_a_look_that_began_late_enough_settles_not_done(world: World) -> None:
    doubtful(world, settle_ms=1000)
    world.now += 20_000
    world.lease_until = world.now + 30_000
    look(world)
    step = reconcile(world, "not_done")
    assert (step.state, step.fail_status) == (StepState.FAILED, FailStatus.NOT_EXECUTED)
    outcome = world.begin(call(epoch=2, settle_ms=1000), who=agent("k2", now=world.now))
    assert isinstance(outcome, Ready)
    assert outcome.step.attempt == 2


def test_a_static_key_is_never_provably_dead_for_a_hook_but_a_person_may_say_not_done(world: World) -> None:
    world.begin(call(), issuer=STATIC)
    world.lapse()
    world.resume(agent("k2", now=world.now))
    world.now += 10_000_000
    world.lease_until = world.now + 30_000
    look(world)
    with pytest.raises(PriorCredentialLive, match="person"):
        reconcile(world, "not_done")
    assert reconcile(world, "not_done", via=None, operator="opr_ann").state is StepState.FAILED


def test_unknown_leaves_the_doubt(world: World) -> None:
    doubtful(world)
    look(world)
    step = reconcile(world, "unknown")
    assert (step.state, step.reconciles) == (StepState.IN_DOUBT, 1)


@pytest.mark.parametrize(
    ("via", "tool"),
    [(None, "pay.reconcile"), ("other~reconcile~1", "pay.reconcile"), (LOOK, "pay"), ("missing", "pay.reconcile")],
)
def test_a_hook_must_name_its_own_look(world: World, via: str | None, tool: str) -> None:
    doubtful(world)
    if via is not None and via != "missing":
        look(world, via, tool)
    with pytest.raises(InvalidRequest) as refused:
        reconcile(world, "done", via=via)
    assert refused.value.field == "via"


def test_a_look_that_is_not_completed_proves_nothing(world: World) -> None:
    doubtful(world)
    what = call(LOOK, epoch=2, tool="pay.reconcile", effect=Effect.READ)
    world.begin(what, who=agent("k2", now=world.now))
    with pytest.raises(InvalidRequest, match="not completed"):
        reconcile(world, "done")


@pytest.mark.parametrize("verdict", ["done", "not_done", "unknown"])
def test_a_recorded_step_is_no_look(world: World, verdict: str) -> None:
    """It has no credential, and policy was never asked: with it nobody has looked at anything."""
    doubtful(world)
    journal = world.journal()
    outcomes.record(
        journal, LOOK, name="pay.reconcile", digest_preimage=b"{}", id_source=IdSource.EXPLICIT, result=Result(b"1")
    )  # fmt: skip
    world.hold(journal)
    before = len(world.entries)
    with pytest.raises(InvalidRequest, match="credential of its own") as refused:
        reconcile(world, verdict)
    assert (refused.value.field, len(world.entries), world.step().state) == ("via", before, StepState.IN_DOUBT)


def test_a_look_that_can_do_more_than_look_is_none(world: World) -> None:
    doubtful(world)
    world.now += 20_000
    world.lease_until = world.now + 30_000
    world.begin(call(LOOK, epoch=2, tool="pay.reconcile", effect=Effect.IDEMPOTENT), who=agent("k2", now=world.now))
    world.complete(LOOK)
    with pytest.raises(InvalidRequest, match="as a read"):
        reconcile(world, "done")


def test_a_look_from_before_the_doubt_proves_nothing(world: World) -> None:
    world.begin(call(LOOK, tool="pay.reconcile", effect=Effect.READ))
    world.complete(LOOK)
    world.now += 1
    doubtful(world)
    with pytest.raises(InvalidRequest, match="before the step was in doubt") as refused:
        reconcile(world, "done")
    assert (refused.value.field, world.step().state) == ("via", StepState.IN_DOUBT)


@pytest.mark.parametrize(("verdict", "attempt", "field"), [("maybe", 1, "verdict"), ("done", 2, "attempt")])
def test_a_malformed_verdict_is_refused(world: World, verdict: str, attempt: int, field: str) -> None:
    doubtful(world)
    look(world)
    with pytest.raises(InvalidRequest) as refused:
        reconcile(world, verdict, attempt=attempt)
    assert refused.value.field == field


def test_only_a_doubt_is_reconciled(world: World) -> None:
    world.begin(call(), ask_people())
    with pytest.raises(InvalidRequest, match="not in doubt"):
        reconcile(world, "done", via=None, operator="opr_ann")
