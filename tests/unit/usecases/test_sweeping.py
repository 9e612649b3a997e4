"""The sweeper goes on with everything else when one thing fails, and says so at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand, with_limits
from fakes.outside import LOGIN, OutsideIssuer, opened
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.reads import Due, Reads
from stepgrant_broker.usecases import sweep as sweeping
from stepgrant_broker.usecases import taking_back
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.sweep import sweep


async def test_a_run_that_cannot_be_parked_does_not_keep_the_others_waiting(broker: Hand) -> None:
    runs = [(await broker.open(name, who=name))["run"] for name in ("one", "two")]
    broker.clock.tick(31_000)
    failures = iter([OSError(5, "gone")])

    def once() -> None:
        for error in failures:
            raise error

    broker.failpoints.armed = {"store.before_apply": once}
    swept = await sweep(broker.ports)
    assert swept.parked == 1
    assert [(one.work, one.run in runs, one.code) for one in swept.failed] == [("park", True, "ledger_unavailable")]
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


async def test_a_round_notes_what_nobody_has_to_look_at_again(broker: Hand) -> None:
    """Its epoch is over; it could be resumed, so it does not rest."""
    await broker.open()
    broker.clock.tick(31_000)
    assert (await sweep(broker.ports)).parked == 1
    assert await broker.store.let_rest() == 0
    await broker.open(who="k2")
    broker.clock.tick(31_000)
    assert await broker.ports.reads.lapsed(broker.clock.now(), 9) != ()
    assert (await sweep(broker.ports)).parked == 1


class Forgetful:
    """Reads of a store that takes no notes now, for this reason."""

    def __init__(self, reads: Reads, why: Exception) -> None:
        self._reads, self._why = reads, why

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is read
        return getattr(self._reads, name)

    async def let_rest(self) -> int:
        raise self._why


async def test_notes_that_cannot_be_written_fail_no_round(broker: Hand, issuer: OutsideIssuer) -> None:
    """Nothing is wrong without them: what a round did, and what is due outside, is told all the same."""
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    broker.clock.tick(31_000)
    forgetful = Forgetful(broker.ports.reads, StoreUnavailable("the store is too busy"))
    swept = await sweep(replace(broker.ports, reads=forgetful))
    assert (swept.parked, swept.unconfirmed, swept.failed, swept.fault) == (1, 1, (), None)
    bug = Forgetful(broker.ports.reads, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        await sweep(replace(broker.ports, reads=bug))


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
    monkeypatch.setattr(taking_back, "LONGEST_S", 0.05)
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed) == (0, 1)
    monkeypatch.setattr(issuer, "revoke", revoking)
    monkeypatch.setattr(taking_back, "LONGEST_S", 3600.0)
    assert (await sweep(broker.ports)).confirmed == 1


async def test_what_was_confirmed_meanwhile_is_not_asked_for_again(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    jti = (await broker.begin(run, decision=LOGIN))["grant"]["jti"]
    await broker.complete(run)
    assert await taking_back.ended(broker.ports, "acme", jti) is None
    assert await taking_back.ended(broker.ports, "acme", "grn_nobody") is None
    assert len(issuer.revoked) == 1


class Stale:
    """Reads whose list of due credentials is as old as what `then` does after it was made."""

    def __init__(self, reads: Reads, then: Callable[[], Awaitable[object]]) -> None:
        self._reads, self._then = reads, then

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is read
        return getattr(self._reads, name)

    async def leases_due(self, now: int, limit: int, after: Due | None = None) -> tuple[Due, ...]:
        due = await self._reads.leases_due(now, limit, after)
        assert due
        await self._then()
        return due


async def test_of_two_sweepers_the_later_leaves_what_the_other_did(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.up = False
    await broker.complete(run)
    issuer.up = True
    stale = Stale(broker.ports.reads, lambda: sweep(broker.ports))
    swept = await sweep(replace(broker.ports, reads=stale))
    assert (swept.confirmed, swept.unconfirmed) == (0, 0)
    assert len(issuer.revoked) == 1
    assert (await broker.entries(run)).count("grant_revoked") == 2, "taken back, and confirmed once"


async def test_an_intent_that_a_crash_left_at_an_issuer_that_confirms_nothing_has_failed_and_is_done_with(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    issuer.revocation = Revocation.EXPIRY
    run = await opened(broker)

    def crash() -> None:
        raise ConnectionResetError

    broker.failpoints.armed = {"usecase.before_mint": crash}
    with pytest.raises(ConnectionResetError):
        await broker.begin(run, decision=LOGIN)
    broker.failpoints.armed = {}
    broker.clock.tick(MINT_DEADLINE_MS)
    swept = await sweep(broker.ports)
    assert (swept.confirmed, swept.unconfirmed, swept.oldest_ms) == (0, 0, 0)
    assert (issuer.tokens, (await broker.entries(run))[-1]) == ({}, "grant_failed")
    assert await broker.ports.reads.leases_due(broker.clock.now() + 3_600_000, 10) == ()


async def test_a_run_that_cannot_be_erased_does_not_keep_the_others_and_is_told_of(broker: Hand) -> None:
    runs = []
    for name in ("one", "two"):
        run = str((await broker.open(name, who=name))["run"])
        runs.append(run)
        await end(broker.ports, broker.agent(name), run, 1, "completed", Result(None), broker.request())
    failures = iter([OSError(5, "gone")])

    def once() -> None:
        for error in failures:
            raise error

    ports = with_limits(broker.ports, kept_ms={"completed": 1})
    broker.clock.tick(1)
    broker.failpoints.armed = {"store.before_apply": once}
    swept = await sweep(ports)
    assert (swept.erased, [(one.work, one.code) for one in swept.failed]) == (1, [("erase", "ledger_unavailable")])
    assert sorted([("run_erased" in await broker.entries(run)) for run in runs]) == [False, True]
    assert (await sweep(ports)).erased == 1
