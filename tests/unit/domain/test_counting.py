"""What a grant counts, and when it ends."""

import pytest

from changing import replace
from fakes.world import JWT, World, agent, allow, call
from stepgrant import canonical
from stepgrant_broker.domain import policy_input
from stepgrant_broker.domain.calls import Ask
from stepgrant_broker.domain.deciding import meter_number
from stepgrant_broker.domain.decisions import Allow, Effect, GrantSpec
from stepgrant_broker.domain.fold.common import evolve, the_run
from stepgrant_broker.domain.state import FailStatus, View


@pytest.fixture
def world() -> World:
    world = World()
    world.open()
    return world


def test_labels_and_meters_count_once_per_step_and_come_back_if_unused(world: World) -> None:
    decision = Allow(("ok",), GrantSpec(effect=Effect.IDEMPOTENT), ("pii",), {"usd": 100_000_000})
    what = call(effect=Effect.IDEMPOTENT)
    world.begin(what, decision)
    world.begin(what, decision)
    run = world.view.run
    assert run is not None
    assert (dict(run.history.labels), dict(run.history.meters)) == ({"pii": 1}, {"usd": 100_000_000})
    world.redeem()
    world.begin(what, decision)
    run = world.view.run
    assert run is not None
    assert (dict(run.history.labels), dict(run.history.meters)) == ({"pii": 1}, {"usd": 100_000_000})
    assert world.step().attempt == 2
    world.end("cancelled")


def test_a_retry_does_not_find_its_own_earlier_attempt_in_the_budget(world: World) -> None:
    decision = Allow(("ok",), GrantSpec(effect=Effect.IDEMPOTENT), (), {"usd": 90_000_000})
    what = call(effect=Effect.IDEMPOTENT)
    world.begin(what, decision)
    world.redeem()
    ask = Ask(2, 1, new=False, previous_outcome="started")

    def spent(step: str) -> object:
        document = policy_input.for_step(world.journal(), agent(), replace(what, step=step), ask, None, None)
        members = canonical.loads(document)
        assert isinstance(members, dict)
        return members["history"]["meters"]

    assert (spent("s1"), spent("another")) == ({}, {"usd": 90})


def test_meters_come_back_when_the_step_is_known_not_executed_but_labels_stay(world: World) -> None:
    world.begin(call(), Allow(("ok",), GrantSpec(effect=Effect.ONCE), ("pii",), {"usd": 5}))
    world.redeem()
    world.fail(FailStatus.NOT_EXECUTED)
    run = world.view.run
    assert run is not None
    assert (dict(run.history.labels), dict(run.history.meters)) == ({"pii": 1}, {})


def test_the_grant_ends_at_the_earliest_end(world: World) -> None:
    who = agent(now=world.now)
    world.begin(call("a"), allow(ttl_s=300), who=who)
    assert world.grant("a").exp == world.now + 300_000
    world.begin(call("b"), allow(ttl_s=10_000))
    assert world.grant("b").exp == world.now + 300_000
    world.begin(call("c"), who=replace(who, not_after=world.now + 7_500))
    assert world.grant("c").exp == world.now + 7_000
    world.begin(call("d"), issuer=replace(JWT, max_ttl_s=20))
    assert world.grant("d").exp == world.now + 20_000


def test_a_meter_is_shown_whole_where_it_is_and_changed_fields_have_names(world: World) -> None:
    assert [meter_number(micro) for micro in (2_000_000, 1_500_000, 0)] == [2, 1.5, 0]
    assert world.view.run is not None
    with pytest.raises(TypeError, match="epochs"):
        evolve(world.view.run, epochs=2)


def test_a_run_that_is_not_there_cannot_be_folded_into() -> None:
    with pytest.raises(LookupError):
        the_run(View())
