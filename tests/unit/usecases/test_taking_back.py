"""Credentials outside are taken back until their issuer confirms it, and nothing effectful comes before that."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import count

import pytest

from fakes.clock import StandingClock
from fakes.hand import Hand, allow
from fakes.outside import LOGIN, OutsideIssuer, grants, opened, payloads_behind
from fakes.world import call
from stepgrant_broker.domain.caller import Request
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    IssuerRefused,
    PriorCredentialLive,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.domain.state import GrantStatus
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.sweep import sweep


@pytest.mark.parametrize("how", ["complete", "park", "end", "revoke", "quarantine"])
async def test_what_a_run_held_is_dead_when_the_call_that_ended_it_returns(
    broker: Hand, issuer: OutsideIssuer, how: str
) -> None:
    run = await opened(broker)
    jti = (await broker.begin(run, decision=LOGIN))["grant"]["jti"]
    ports, me = broker.ports, broker.agent()
    if how == "complete":
        await broker.complete(run)
    elif how == "park":
        await park(ports, me, run, 1, "requested", broker.request())
    elif how == "end":
        await end(ports, me, run, 1, "failed", Result(None), broker.request())
    elif how == "revoke":
        await revoke_grant(ports, broker.operator, jti, broker.request())
    else:
        await quarantine(ports, broker.operator, "run", run)
    assert issuer.alive == {}
    assert issuer.revoked == [("handle-1", "lease-2")]
    (grant,) = await grants(broker, run)
    assert grant.confirmed_at is not None
    assert await payloads_behind(broker, grant) == []
    assert (await sweep(ports)).confirmed == 0


async def test_a_call_does_not_fail_for_a_revocation_that_does_and_the_sweeper_never_gives_up(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    assert (await broker.complete(run))["state"] == "completed"
    for minutes in range(1, 13):
        broker.clock.tick(60_000)
        swept = await sweep(broker.ports)
        assert (swept.confirmed, swept.unconfirmed, swept.oldest_ms) == (0, 1, minutes * 60_000)
    (grant,) = await grants(broker, run)
    assert len(await payloads_behind(broker, grant)) == 2
    issuer.up = True
    assert (await sweep(broker.ports)).confirmed == 1
    assert issuer.alive == {}
    assert (await sweep(broker.ports)).unconfirmed == 0


async def test_a_login_that_nobody_gave_back_is_taken_back_when_it_expires(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    broker.clock.tick(60_000 - 1)
    await sweep(broker.ports)
    broker.clock.tick(1)
    await sweep(broker.ports)
    assert issuer.alive == {}
    (grant,) = await grants(broker, run)
    assert grant.confirmed_at is not None


async def test_an_issuer_goes_by_the_stores_clock_and_not_by_its_hosts(broker: Hand, issuer: OutsideIssuer) -> None:
    """By a host that runs ahead, a login that nobody knows of would be called dead while it lives."""
    told, revoking = list[int](), issuer.revoke

    async def revoke(*, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        told.append(now)
        return await revoking(tenant=tenant, jti=jti, handle=handle, lease=lease, now=now)

    issuer.revoke = revoke  # type: ignore[method-assign]
    broker.ports = replace(broker.ports, clock=StandingClock(broker.clock.now() + 3_600_000))
    run = await opened(broker)
    begun = broker.clock.now()
    issuer.longer_ms = 1000
    with pytest.raises(IssuerRefused):
        await broker.begin(run, decision=LOGIN)
    assert told == [begun], "what was abandoned is taken back at the time of its order"
    issuer.longer_ms = 0
    await broker.begin(run, "s2", decision=LOGIN)
    broker.clock.tick(60_000)
    await sweep(broker.ports)
    assert told == [begun, begun + 60_000]


async def test_the_successor_waits_for_the_confirmed_death_of_what_older_epochs_held(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    with pytest.raises(PriorCredentialLive) as waited:
        await broker.begin(run, "s2", LOGIN, who="k2", epoch=2, resource="order/2")
    assert waited.value.retry_after_ms == 500
    assert len(issuer.alive) == 1
    assert issuer.minted == [(await grants(broker, run))[0].jti]
    issuer.up = True
    answer = await broker.begin(run, "s2", LOGIN, who="k2", epoch=2, resource="order/2")
    assert answer["outcome"] == "run"
    assert list(issuer.alive) == [answer["credential"]["fields"]["username"].removeprefix("v-")]


async def test_who_resumes_comes_after_what_the_sweeper_could_not_take_back(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    broker.clock.tick(31_000)
    assert (await sweep(broker.ports)).parked == 1
    assert len(issuer.alive) == 1
    issuer.up = True
    await broker.open(who="k2")
    assert issuer.alive == {}
    (grant,) = await grants(broker, run)
    assert grant.confirmed_at is not None


async def test_a_revocation_that_is_not_confirmed_is_not_taken_for_one(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.confirms = False
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    with pytest.raises(PriorCredentialLive):
        await broker.begin(run, "s2", LOGIN, who="k2", epoch=2, resource="order/2")
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.confirmed_at) == (GrantStatus.REVOKED, None)


async def test_a_lost_reply_takes_the_first_credential_back_before_there_is_another(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run = await opened(broker)
    request = broker.request()
    context = {"decide": LOGIN}
    await broker.begin(run, decision=LOGIN, request=request)
    again = call(context=context, not_received=True)
    with pytest.raises(PriorCredentialLive) as waits:
        await begin(broker.ports, broker.agent(), run, again, request)
    assert waits.value.retry_after_ms == 100
    assert issuer.alive == {}
    answer = await begin(broker.ports, broker.agent(), run, again, request)
    assert (answer["outcome"], answer["attempt"]) == ("run", 1)
    assert len(issuer.alive) == 1
    assert [grant.cause for grant in await grants(broker, run)] == ["not_received", None]


async def test_without_that_statement_a_lost_reply_is_doubt(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    request = broker.request()
    await broker.begin(run, decision=LOGIN, request=request)
    answer = await begin(broker.ports, broker.agent(), run, call(context={"decide": LOGIN}), request)
    assert answer["outcome"] == "in_doubt"
    assert issuer.alive == {}


async def test_a_new_attempt_of_a_read_step_takes_the_old_login_back(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    read = allow(issuer="outside", effect="read")
    await broker.begin(run, decision=read, effect=Effect.READ)
    answer = await broker.begin(run, decision=read, effect=Effect.READ)
    assert answer["attempt"] == 2
    assert len(issuer.alive) == 1


@pytest.mark.parametrize("revocation", [Revocation.EXPIRY, Revocation.NONE])
async def test_an_intent_of_an_issuer_that_confirms_nothing_has_failed(
    broker: Hand, issuer: OutsideIssuer, revocation: Revocation
) -> None:
    issuer.revocation = revocation
    run = await opened(broker)
    issuer.longer_ms = 1000
    with pytest.raises(IssuerRefused):
        await broker.begin(run, decision=LOGIN)
    assert (await broker.entries(run))[-2:] == ["grant_issued", "grant_failed"]
    assert issuer.alive == {}
    assert (await sweep(broker.ports)).unconfirmed == 0


async def test_an_issuer_that_is_gone_from_the_configuration_is_an_alarm(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    kept = {name: one for name, one in broker.ports.issuers.items() if name != "outside"}
    broker.ports = replace(broker.ports, issuers=kept)
    await broker.complete(run)
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed) == (0, 1)
    assert len(issuer.alive) == 1


async def test_one_broken_issuer_does_not_keep_the_others_waiting(broker: Hand, issuer: OutsideIssuer) -> None:
    # Its handles have names of their own, as real ones have: equal ones of one run are one secret, and go together.
    other = OutsideIssuer(name="other", numbers=count(100))
    broker.ports = replace(broker.ports, issuers={**broker.ports.issuers, "other": other})
    run = await opened(broker)
    await broker.begin(run, "a", LOGIN)
    await broker.begin(run, "b", allow(issuer="other"))
    issuer.up = other.up = False
    await broker.complete(run, "a")
    await broker.complete(run, "b")
    other.up = True
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed) == (1, 1)
    assert (len(issuer.alive), len(other.alive)) == (1, 0)


async def test_tries_that_were_refused_leave_no_token_behind(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    moved = False

    def move() -> None:
        nonlocal moved
        if not moved:
            moved = True
            raise VersionMoved("somebody was faster")

    broker.failpoints.armed = {"usecase.before_commit": move}
    answer = await broker.begin(run, decision=LOGIN)
    assert answer["outcome"] == "run"
    assert issuer.revoked == [("handle-1", None)]
    assert issuer.minted == [answer["grant"]["jti"]]


async def test_no_handle_lease_or_password_is_in_entries_or_receipt(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    assert list(issuer.alive) == ["lease-2"]
    ports = broker.ports
    receipt = json.dumps(await make_receipt(ports.reads, ports.wrap, ports.signer, "acme", run))
    entries = b"".join(entry.data for entry in await ports.reads.entries("acme", run))
    for secret in ("handle-1", "lease-2", "secret-lease-2"):
        assert secret.encode() not in entries
        assert secret not in receipt


async def test_a_run_that_ends_with_a_login_has_a_complete_receipt(broker: Hand, issuer: OutsideIssuer) -> None:
    run, ports = await opened(broker), broker.ports
    await broker.begin(run, decision=LOGIN)
    await end(ports, broker.agent(), run, 1, "failed", Result(None), broker.request())
    assert issuer.alive == {}
    assert (await broker.entries(run))[-2:] == ["run_ended", "grant_revoked"]
    assert (await make_receipt(ports.reads, ports.wrap, ports.signer, "acme", run))["complete"] is True


async def test_of_two_calls_with_one_key_at_most_one_has_a_credential_and_nothing_else_lives(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run = await opened(broker)
    request = Request("same-key", b"{}")
    what = call(context={"decide": LOGIN})
    said = await asyncio.gather(
        *(begin(broker.ports, broker.agent(), run, what, request) for _ in range(2)), return_exceptions=True
    )
    released = [one for one in said if isinstance(one, dict) and "credential" in one]
    # The call that came second may have put the first one's credential in doubt, which takes it back.
    assert len(issuer.alive) <= len(released) <= 1
