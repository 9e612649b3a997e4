"""When a grant is unused, quiet, dead and open: each class of issuer for itself (`protocol.md` §4)."""

import pytest

from changing import replace
from fakes.world import STATIC, World, call
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.grants import (
    dead_at,
    is_open,
    live_effectful,
    provably_unused,
    quiet_at,
    tool_audience,
)
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.state import Grant, GrantStatus

LEEWAY = 5_000


@pytest.fixture
def grant() -> Grant:
    """A grant that must be redeemed, and was not."""
    world = World()
    world.open()
    world.begin(call())
    return world.grant()


def test_a_redeemable_grant_is_dead_when_revoked_unredeemed_or_after_act_before_or_its_end(grant: Grant) -> None:
    assert dead_at(grant, LEEWAY) == grant.exp + LEEWAY
    assert dead_at(replace(grant, status=GrantStatus.REVOKED, revoked_at=7), LEEWAY) == 7
    assert dead_at(replace(grant, redeemed_at=1, act_before=9, revoked_at=7), LEEWAY) == 9 + LEEWAY


def test_a_grant_for_the_tool_itself_tells_nothing_of_its_use(grant: Grant) -> None:
    """No server had to redeem it before the tool acted. Revoked it is dead all the same."""
    own = replace(grant, audience=tool_audience("pay"))
    assert (provably_unused(grant), provably_unused(own)) == (True, False)
    assert provably_unused(replace(own, status=GrantStatus.INTENT)), "it never left"
    assert dead_at(replace(own, status=GrantStatus.REVOKED, revoked_at=7), LEEWAY) == 7


def test_what_was_never_given_is_dead_at_once(grant: Grant) -> None:
    failed = replace(grant, status=GrantStatus.FAILED)
    assert dead_at(failed, LEEWAY) == grant.issued_at
    assert provably_unused(failed)
    assert provably_unused(None)


def test_a_confirmed_issuer_says_when_and_an_expiring_one_ends_by_itself(grant: Grant) -> None:
    foreign = replace(grant, redeem=RedeemMode.OPTIONAL, revocation=Revocation.CONFIRMED)
    assert dead_at(foreign, LEEWAY) is None
    assert dead_at(replace(foreign, confirmed_at=11), LEEWAY) == 11
    assert dead_at(replace(foreign, revocation=Revocation.EXPIRY), LEEWAY) == grant.exp + LEEWAY
    assert not provably_unused(foreign)


def test_a_static_key_is_never_dead_but_quiet_after_its_grant() -> None:
    world = World()
    world.open()
    world.begin(call(), issuer=STATIC)
    static = world.grant()
    assert dead_at(static, LEEWAY) is None
    assert quiet_at(static, LEEWAY) == static.exp + LEEWAY


def test_of_several_live_grants_the_longest_is_named(grant: Grant) -> None:
    now, later = grant.issued_at, replace(grant, jti="later", exp=grant.exp + 1)
    unconfirmed = replace(grant, jti="never", redeem=RedeemMode.OPTIONAL, revocation=Revocation.CONFIRMED)
    harmless = replace(grant, jti="read", effect=Effect.READ, exp=grant.exp + 9)
    assert live_effectful([later, grant, harmless], 2, now, LEEWAY) == (later, later.exp + LEEWAY)
    assert live_effectful([grant, unconfirmed, later], 2, now, LEEWAY) == (unconfirmed, None)
    assert live_effectful([unconfirmed, later], 2, now, LEEWAY) == (unconfirmed, None)
    assert live_effectful([grant], 1, now, LEEWAY) is None
    assert live_effectful([grant], 2, grant.exp + LEEWAY, LEEWAY) is None


def test_a_grant_is_open_until_its_revocation_is_confirmed(grant: Grant) -> None:
    gone = replace(grant, status=GrantStatus.REVOKED)
    assert is_open(grant)
    assert is_open(replace(grant, status=GrantStatus.INTENT))
    assert not is_open(gone)
    assert is_open(replace(gone, revocation=Revocation.CONFIRMED))
    assert not is_open(replace(gone, revocation=Revocation.CONFIRMED, confirmed_at=1))
    assert not is_open(replace(grant, status=GrantStatus.FAILED))
