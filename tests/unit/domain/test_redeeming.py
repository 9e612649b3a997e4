"""Redeeming: the one use of a grant."""

import pytest

from changing import replace
from fakes.world import World, agent, call, server
from stepgrant_broker.domain import runs
from stepgrant_broker.domain.errors import (
    AlreadyRedeemed,
    DigestMismatch,
    GrantExpired,
    GrantRevoked,
    InvalidRequest,
    Quarantined,
    UnknownGrant,
)
from stepgrant_broker.domain.writes import Quarantine


@pytest.fixture
def world() -> World:
    world = World()
    world.open()
    world.begin(call())
    return world


def unchanged(world: World) -> bool:
    return all(grant.redeemed_at is None for grant in world.view.grants.values())


def test_redeeming_answers_until_when_to_act(world: World) -> None:
    assert world.redeem().act_before == world.now + world.limits.redeem_window_ms


def test_act_before_is_never_after_the_grants_end(world: World) -> None:
    world.now = world.grant().exp - 1_000
    world.lease_until = world.now + 10_000
    assert world.redeem().act_before == world.grant().exp


def test_the_same_server_id_and_proof_get_the_same_answer_until_act_before(world: World) -> None:
    first = world.redeem()
    before = len(world.entries)
    world.now += 9_999
    assert world.redeem() == first
    assert len(world.entries) == before
    world.now += 1
    with pytest.raises(AlreadyRedeemed):
        world.redeem()


@pytest.mark.parametrize("how", ["parked", "quarantined", "lapsed"])
def test_an_answer_is_not_repeated_once_the_grant_is_taken_back(world: World, how: str) -> None:
    """Who asks again has not acted yet."""
    world.redeem()
    before = len(world.entries)
    if how == "parked":
        world.park()
        before = len(world.entries)
    elif how == "quarantined":
        world.quarantines = (Quarantine("acme", "agent", "agent", world.now),)
    else:
        world.lease_until = world.now
    with pytest.raises((GrantRevoked, Quarantined)):
        world.redeem()
    assert len(world.entries) == before


@pytest.mark.parametrize("who", [server("other")])
def test_another_server_of_the_audience_is_too_late(world: World, who: object) -> None:
    world.redeem()
    with pytest.raises(AlreadyRedeemed):
        world.redeem(who=who)  # type: ignore[arg-type]


def test_another_redemption_id_is_a_second_use(world: World) -> None:
    world.redeem()
    with pytest.raises(AlreadyRedeemed):
        world.redeem(rid="r2")


def test_a_server_of_another_audience_learns_nothing(world: World) -> None:
    with pytest.raises(UnknownGrant):
        world.redeem(who=server(audience="https://other.example"))
    assert unchanged(world)


def test_the_digest_of_the_call_must_be_the_granted_one(world: World) -> None:
    with pytest.raises(DigestMismatch):
        world.redeem(digest=call(args={"amount": 1000}).digest)
    assert unchanged(world)


@pytest.mark.parametrize("rid", ["", "x" * 201])
def test_a_redemption_id_is_bounded(world: World, rid: str) -> None:
    with pytest.raises(InvalidRequest) as bad:
        world.redeem(rid=rid)
    assert bad.value.field == "redemption_id"


def test_a_revoked_grant_is_not_redeemed(world: World) -> None:
    world.park()
    with pytest.raises(GrantRevoked):
        world.redeem()
    assert unchanged(world)


def test_a_lapsed_lease_makes_its_grants_worthless(world: World) -> None:
    world.lapse()
    with pytest.raises(GrantRevoked, match="fenced"):
        world.redeem()
    assert unchanged(world)


def test_an_expired_grant_is_not_redeemed(world: World) -> None:
    world.now = world.grant().exp
    world.lease_until = world.now + 1000
    with pytest.raises(GrantExpired):
        world.redeem()
    assert unchanged(world)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("issuer", "jwt"), ("agent", "agent"), ("workload", "wkl_w1"), ("workload", "wkl_tool")],
)
def test_the_kill_switch_stops_redeeming(world: World, kind: str, name: str) -> None:
    world.quarantines = (Quarantine("acme", kind, name, world.now),)
    with pytest.raises(Quarantined):
        world.redeem()
    assert unchanged(world)


def test_a_quarantined_run_redeems_nothing(world: World) -> None:
    journal = world.journal()
    runs.quarantine(journal, "run")
    world.keep(journal)
    with pytest.raises(GrantRevoked):
        world.redeem()


def test_a_fenced_holders_grant_is_not_redeemed_even_before_it_is_revoked(world: World) -> None:
    stale = world.view.grants
    world.lapse()
    world.resume(agent("k2", now=world.now))
    world.view = replace(world.view, grants=stale)
    with pytest.raises(GrantRevoked, match="fenced"):
        world.redeem("s1")
