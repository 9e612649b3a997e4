"""Credentials outside: the intent before the mint, the lease before the release, and nothing for who was fenced."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand
from fakes.outside import LOGIN, OutsideIssuer, grants, opened, payloads_behind
from stepgrant_broker.domain.errors import (
    GrantRevoked,
    IssuerRefused,
    IssuerUnavailable,
    Quarantined,
    StaleEpoch,
    StoreUnavailable,
)
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.domain.ports import GrantOrder, Minted, Revocation
from stepgrant_broker.domain.state import GrantStatus, StepState
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases import leases
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.sweep import sweep


async def test_intent_then_lease_then_release(broker: Hand, issuer: OutsideIssuer) -> None:
    run, order = await opened(broker), list[str]()
    issuer.hooks = {name: lambda name=name: order.append(name) for name in ("intend", "mint")}  # type: ignore[misc]
    broker.failpoints.armed = {"store.after_commit": lambda: order.append("commit")}
    answer = await broker.begin(run, decision=LOGIN)
    assert order == ["intend", "commit", "mint", "commit"]
    assert await broker.entries(run) == [
        "run_opened", "step_prepared", "decision", "grant_issued", "lease_recorded",
    ]  # fmt: skip
    (grant,) = await grants(broker, run)
    assert grant.status is GrantStatus.ISSUED
    assert len(await payloads_behind(broker, grant)) == 2
    assert answer["credential"]["fields"] == {"username": "v-lease-2", "password": "secret-lease-2"}
    assert answer["grant"]["status"] == "issued"


async def test_as_production_runs_it_without_any_failpoint(broker: Hand, issuer: OutsideIssuer) -> None:
    broker.ports = replace(broker.ports, failpoints=None)
    run = await opened(broker)
    assert (await broker.begin(run, decision=LOGIN))["outcome"] == "run"
    assert (await broker.complete(run))["state"] == "completed"
    assert (await broker.begin(run, "s2"))["credential"]["kind"] == "jwt"
    assert issuer.alive == {}
    issuer.up = False
    with pytest.raises(IssuerUnavailable):
        await broker.begin(run, "s3", decision=LOGIN)


async def test_nothing_is_minted_for_an_intent_that_was_not_recorded(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)

    def full() -> None:
        raise OSError(28, "no space left")

    broker.failpoints.armed = {"store.before_apply": full}
    with pytest.raises(StoreUnavailable):
        await broker.begin(run, decision=LOGIN)
    broker.failpoints.armed = {}
    assert (issuer.minted, issuer.tokens, issuer.alive) == ([], {}, {})
    assert await broker.entries(run) == ["run_opened"]


async def test_no_recorded_lease_no_release(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    issuer.hooks["mint"] = lambda: broker.failpoints.armed.update({"store.before_apply": _full})
    with pytest.raises(StoreUnavailable):
        await broker.begin(run, decision=LOGIN)
    broker.failpoints.armed = {}
    assert len(issuer.minted) == 1
    assert issuer.alive == {}
    (grant,) = await grants(broker, run)
    assert grant.status is GrantStatus.INTENT
    broker.clock.tick(MINT_DEADLINE_MS)
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed) == (1, 0)
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.cause) == (GrantStatus.REVOKED, "never_released")
    assert grant.confirmed_at == broker.clock.now()
    assert await payloads_behind(broker, grant) == []


def _full() -> None:
    raise OSError(28, "no space left")


async def test_an_answer_that_is_not_what_was_ordered_is_taken_back(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    issuer.longer_ms = 1000
    with pytest.raises(IssuerRefused, match="longer"):
        await broker.begin(run, decision={**LOGIN, "meters": {"usd": 3}})
    assert issuer.alive == {}
    assert (await broker.entries(run))[-3:] == ["grant_issued", "grant_revoked", "grant_revoked"]
    loaded = await broker.store.load(Query("acme", run=run, step="s1"))
    assert loaded.view.run is not None
    assert dict(loaded.view.run.history.meters) == {}
    assert loaded.view.steps["s1"].state is StepState.PREPARED
    issuer.longer_ms = 0
    assert (await broker.begin(run, decision=LOGIN))["attempt"] == 1


async def test_a_mint_that_takes_too_long_is_given_up_and_taken_back(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(broker)
    monkeypatch.setattr(leases, "MINT_DEADLINE_MS", 50)
    issuer.hangs = True
    with pytest.raises(IssuerUnavailable, match="in time"):
        await broker.begin(run, decision=LOGIN)
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.cause) == (GrantStatus.REVOKED, "mint_timed_out")
    assert grant.confirmed_at is not None
    assert issuer.tokens == {}


async def test_an_issuer_that_cannot_prepare_leaves_no_trace(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    issuer.up = False
    with pytest.raises(IssuerUnavailable):
        await broker.begin(run, decision=LOGIN)
    assert await broker.entries(run) == ["run_opened"]


@pytest.mark.parametrize("what", ["resumed", "revoked", "quarantined"])
async def test_who_was_fenced_while_it_was_minted_gets_nothing(broker: Hand, issuer: OutsideIssuer, what: str) -> None:
    run = await opened(broker)
    loop, others = asyncio.get_running_loop(), list[asyncio.Task[Any]]()

    async def other() -> None:
        if what == "resumed":
            broker.clock.tick(31_000)
            await broker.open(who="k2")
        elif what == "revoked":
            (grant,) = await grants(broker, run)
            await revoke_grant(broker.ports, broker.operator, grant.jti, broker.request())
        else:
            await quarantine(broker.ports, broker.operator, "issuer", "outside")

    minting = issuer.mint

    async def slow(order: Any, handle: str | None) -> Any:  # noqa: ANN401 - as the port
        minted = await minting(order, handle)
        others.append(loop.create_task(other()))
        await others[0]
        return minted

    issuer.mint = slow  # type: ignore[method-assign]
    expected = {"resumed": StaleEpoch, "revoked": GrantRevoked, "quarantined": Quarantined}[what]
    with pytest.raises(expected):
        await broker.begin(run, decision=LOGIN)
    assert issuer.alive == {}
    assert "lease_recorded" not in await broker.entries(run)
    (grant,) = await grants(broker, run)
    assert grant.status is GrantStatus.REVOKED
    assert grant.confirmed_at is not None


async def test_an_issuer_that_gives_no_handle_mints_nothing(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one nobody could take back what came of it."""
    run = await opened(broker)

    async def nameless(_: object) -> str | None:
        return None

    monkeypatch.setattr(issuer, "intend", nameless)
    with pytest.raises(IssuerRefused, match="gave no handle to take it back by"):
        await broker.begin(run, decision=LOGIN)
    assert issuer.minted == []
    assert await broker.entries(run) == ["run_opened"]


async def test_an_issuer_that_hangs_before_anything_is_recorded_leaves_no_trace(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(broker)

    async def hang(_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(leases, "MINT_DEADLINE_MS", 20)
    monkeypatch.setattr(issuer, "intend", hang)
    with pytest.raises(IssuerUnavailable, match="did not answer in time"):
        await broker.begin(run, decision=LOGIN)
    assert issuer.minted == []
    assert await broker.entries(run) == ["run_opened"]


async def test_no_call_waits_for_ever_until_something_is_taken_back(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    revoking = issuer.revoke

    async def hang(**_: object) -> bool:
        await asyncio.sleep(3600)
        return True

    monkeypatch.setattr(issuer, "revoke", hang)
    monkeypatch.setattr(leases, "TAKE_BACK_S", 0.02)
    assert (await broker.complete(run))["state"] == "completed"
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.confirmed_at) == (GrantStatus.REVOKED, None), "no word of it is no confirmation"
    monkeypatch.setattr(issuer, "revoke", revoking)
    assert (await sweep(broker.ports)).confirmed == 1


async def test_what_another_broker_confirmed_is_not_asked_for_again(broker: Hand, issuer: OutsideIssuer) -> None:
    """Its handle and lease are erased: there is nothing left to name it by."""
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    (stale,) = await grants(broker, run)
    await broker.complete(run)
    entries, asked = await broker.entries(run), list(issuer.revoked)
    assert await leases.confirm(broker.ports, stale)
    assert (await broker.entries(run), issuer.revoked) == (entries, asked)
    assert len(asked) == 1


async def test_what_was_revoked_while_it_failed_stays_revoked(broker: Hand, issuer: OutsideIssuer) -> None:
    """Of an issuer inside: its grant is taken back while it is asked, and then it cannot give anything."""
    issuer.outside, issuer.revocation = False, Revocation.NONE
    run = await opened(broker)

    async def refused(order: GrantOrder, handle: str | None) -> Minted:
        assert handle is None
        await revoke_grant(broker.ports, broker.operator, order.jti, broker.request())
        raise IssuerUnavailable("the issuer does not answer")

    issuer.mint = refused  # type: ignore[method-assign]
    with pytest.raises(IssuerUnavailable, match="does not answer"):
        await broker.begin(run, decision=LOGIN)
    assert (await broker.entries(run))[-2:] == ["grant_issued", "grant_revoked"]
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.cause) == (GrantStatus.REVOKED, "operator")
