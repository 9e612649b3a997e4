"""When a grant is provably unused, quiet and dead (`protocol.md` §4, "dead is defined per class").

Rules:
* `provably_unused`: it was never delivered, or must be redeemed before use and was not. Revoking it makes that final.
* `quiet_at`: from when on another effectful *start* may proceed. `dead_at`: from when on nothing can still happen;
  a static key never gets there.
* Redemption tells of use only where a server has to redeem before it acts. A grant for the tool itself has no server
  (`tool_audience`): the tool acts whether or not anybody redeems, so such a grant was perhaps used. It is dead all the
  same once it is revoked: no server accepts what must be redeemed and was not.
* The leeway covers the clocks of resource servers.
* A grant whose lease was never recorded was never released: nobody can have used it, though something may live at its
  issuer that has to be taken back (`due_at`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stepgrant_broker.domain.decisions import RedeemMode
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.state import Grant, GrantStatus

TOOL_AUDIENCE: Final = "urn:stepgrant:tool:"
MINT_DEADLINE_MS: Final = 10_000
"""How long an issuer outside may take to mint. What comes later is taken back and never released."""
LATE_MINT_MS: Final = 30_000
"""How long it may still be at a mint that nobody waits for any more."""
LONGEST_LIFE_MS: Final = 300_000
"""No policy can give more, and no issuer is set up for more."""


def tool_audience(tool: str) -> str:
    """The audience of a grant where policy names no server: the tool in the agent's own process."""
    return TOOL_AUDIENCE + tool


def provably_unused(grant: Grant | None) -> bool:
    """True when no effect can have come from it, provided it is revoked now (or already was, unredeemed)."""
    if grant is None or grant.status in {GrantStatus.FAILED, GrantStatus.INTENT}:
        return True
    if grant.audience.startswith(TOOL_AUDIENCE):
        return False
    return grant.redeem is RedeemMode.REQUIRED and grant.redeemed_at is None


def dead_at(grant: Grant, leeway_ms: int) -> int | None:
    """When nothing can come from it any more; `None` when that can never be proven."""
    if grant.status is GrantStatus.FAILED:
        return grant.issued_at
    if grant.redeem is RedeemMode.REQUIRED:
        if grant.act_before is not None:
            return grant.act_before + leeway_ms
        return grant.revoked_at if grant.revoked_at is not None else grant.exp + leeway_ms
    match grant.revocation:
        case Revocation.CONFIRMED:
            return grant.confirmed_at
        case Revocation.EXPIRY:
            return grant.exp + leeway_ms
        case Revocation.NONE:
            return None


def quiet_at(grant: Grant, leeway_ms: int) -> int | None:
    """When another effectful start may proceed; `None` while only the issuer's confirmation can say."""
    if grant.revocation is Revocation.NONE and grant.redeem is RedeemMode.OPTIONAL:
        return grant.exp + leeway_ms
    return dead_at(grant, leeway_ms)


def live_effectful(grants: Iterable[Grant], epoch: int, now: int, leeway_ms: int) -> tuple[Grant, int | None] | None:
    """The effectful grant of an older epoch that lives longest, with the time it goes quiet; `None` if none lives."""
    worst: tuple[Grant, int | None] | None = None
    for grant in grants:
        if grant.epoch >= epoch or not grant.effect.effectful:
            continue
        quiet = quiet_at(grant, leeway_ms)
        if quiet is not None and quiet <= now:
            continue
        if worst is None or (worst[1] is not None and (quiet is None or quiet > worst[1])):
            worst = (grant, quiet)
    return worst


def is_open(grant: Grant) -> bool:
    """True while the broker still has something to do for it: revoke it, or see its revocation confirmed."""
    return grant.status in {GrantStatus.INTENT, GrantStatus.ISSUED} or needs_confirmation(grant)


def needs_confirmation(grant: Grant) -> bool:
    """True when it was taken back and its issuer has not confirmed that it is dead."""
    return (
        grant.status is GrantStatus.REVOKED and grant.revocation is Revocation.CONFIRMED and grant.confirmed_at is None
    )


def due_at(grant: Grant) -> int | None:
    """From when on the sweeper has to act for a credential outside; `None`: never.

    An intent whose broker is gone is due once no mint of it can still be under way; a login when it expires, because
    only its issuer can say that it is dead; one that was taken back at once.
    """
    if grant.status is GrantStatus.INTENT:
        return grant.issued_at + MINT_DEADLINE_MS
    if grant.revocation is not Revocation.CONFIRMED:
        return None
    if grant.status is GrantStatus.ISSUED:
        return grant.exp
    return grant.revoked_at if needs_confirmation(grant) else None


def over_at(grant: Grant, leeway_ms: int) -> int:
    """When the longest life that its issuer could have given is over, even to what nobody knows of."""
    return max(grant.exp, grant.issued_at + MINT_DEADLINE_MS + LATE_MINT_MS + LONGEST_LIFE_MS) + leeway_ms
