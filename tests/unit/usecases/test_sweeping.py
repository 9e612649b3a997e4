"""The sweeper goes on with everything else when one thing fails, and says so at the end."""

from __future__ import annotations

import asyncio

import pytest

from fakes.hand import Hand
from fakes.outside import LOGIN, OutsideIssuer, opened
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.usecases import sweep as sweeping
from stepgrant_broker.usecases.sweep import sweep


async def test_a_run_that_cannot_be_parked_does_not_keep_the_others_waiting(broker: Hand) -> None:
    runs = [(await broker.open(name, who=name))["run"] for name in ("one", "two")]
    broker.clock.tick(31_000)
    failures = iter([OSError(5, "gone")])

    def once() -> None:
        for error in failures:
            raise error

    broker.failpoints.armed = {"store.before_apply": once}
    with pytest.raises(StoreUnavailable):
        await sweep(broker.ports)
    parked = [("run_parked" in await broker.entries(run)) for run in runs]
    assert sorted(parked) == [False, True]
    assert (await sweep(broker.ports)).parked == 1


async def test_a_run_that_came_back_meanwhile_is_left_alone(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.clock.tick(31_000)
    due = await broker.ports.reads.lapsed(broker.clock.now(), 10)
    assert due == (("acme", run),)
    await broker.open(who="k2")
    assert await sweeping._park_lapsed(broker.ports, "acme", run) == 0
    assert "run_parked" not in await broker.entries(run)


async def test_an_issuer_that_hangs_is_left_for_the_next_round(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    await broker.complete(run)
    issuer.up = True
    revoking = issuer.revoke

    async def hang(**_: object) -> bool:
        await asyncio.sleep(3600)
        return True

    monkeypatch.setattr(issuer, "revoke", hang)
    monkeypatch.setattr(sweeping, "LONGEST_S", 0.05)
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed) == (0, 1)
    monkeypatch.setattr(issuer, "revoke", revoking)
    assert (await sweep(broker.ports)).confirmed == 1


async def test_what_was_confirmed_meanwhile_is_not_asked_for_again(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    jti = (await broker.begin(run, decision=LOGIN))["grant"]["jti"]
    await broker.complete(run)
    assert await sweeping._ended(broker.ports, "acme", jti) is None
    assert await sweeping._ended(broker.ports, "acme", "grn_nobody") is None
    assert len(issuer.revoked) == 1
