"""Nothing that cannot be done hides what can be, be it a grant, a run or an issuer, in one round or over many."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hand import Hand, allow, with_limits
from fakes.outside import OutsideIssuer
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, StoreUnavailable
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.usecases import leases, misses, taking_back
from stepgrant_broker.usecases import sweep as sweeping
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.sweep import Sweeping, sweep

HOUR_MS = 3_600_000


@pytest.fixture
async def memory() -> AsyncIterator[Sweeping]:
    """What a process remembers between rounds."""
    made = Sweeping()
    yield made
    await made.outside.stop()


def other(broker: Hand, name: str) -> OutsideIssuer:
    """One more issuer that the broker has."""
    made = OutsideIssuer(name=name)
    broker.ports = replace(broker.ports, issuers={**broker.ports.issuers, name: made})
    return made


async def holding(broker: Hand, issuer: OutsideIssuer, many: int) -> list[str]:
    """Runs that hold a login of this issuer, each a moment after the last."""
    runs = []
    for _ in range(many):
        name = f"{issuer.name}-{next(broker.count)}"
        run = str((await broker.open(name, who=name))["run"])
        await broker.begin(run, decision=allow(issuer=issuer.name), who=name)
        runs.append(run)
        broker.clock.tick(10)
    return runs


def spoil(folder: Path, broker: Hand, run: str) -> None:
    """Write over the key of a run's chain, as somebody with the database could."""
    with sqlite3.connect(folder / "store" / "stepgrant.db") as db:
        changed = db.execute("update chain_keys set ciphertext = zeroblob(48) where run = ?", (run,))
        assert changed.rowcount == 1
    db.close()
    broker.ports.keys.forget("acme", run)


@asynccontextmanager
async def answers(issuer: OutsideIssuer, bad: set[str], fault: Exception) -> AsyncIterator[list[str]]:
    """For these leases the issuer answers with the fault; the list tells whom it was asked about."""
    asked, revoking = list[str](), issuer.revoke

    async def revoke(*, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        asked.append(lease or "")
        if lease in bad:
            raise fault
        return await revoking(tenant=tenant, jti=jti, handle=handle, lease=lease, now=now)

    issuer.revoke = revoke  # type: ignore[method-assign]
    yield asked
    issuer.revoke = revoking  # type: ignore[method-assign]


async def test_a_login_that_cannot_be_dropped_keeps_no_other_of_its_issuer_alive(
    broker: Hand, issuer: OutsideIssuer, memory: Sweeping
) -> None:
    runs = await holding(broker, issuer, 8)
    bad = list(issuer.alive)[:6]
    broker.clock.tick(HOUR_MS)
    async with answers(issuer, set(bad), IssuerRefused("objects depend on the role")) as asked:
        swept = await sweep(broker.ports, memory)
        assert list(issuer.alive) == bad
        assert (swept.confirmed, swept.unconfirmed) == (2, 6)
        assert {(one.work, one.kind) for one in swept.failed} == {("take_back", "IssuerRefused")}
        assert sorted(one.run for one in swept.failed) == sorted(runs[:6])
        assert (await sweep(broker.ports, memory)).failed == (), "they rest"
        for times in range(1, 9):
            assert [asked.count(one) for one in bad] == [times] * 6, "and are asked about for ever"
            broker.clock.tick(misses.LONGEST_MS)
            await sweep(broker.ports, memory)
    broker.clock.tick(misses.LONGEST_MS)
    assert (await sweep(broker.ports, memory)).confirmed == 6
    assert issuer.alive == {}


async def test_an_issuer_that_is_gone_hides_none_of_another(
    broker: Hand, memory: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_back, "LOOKED_AT", 3)
    gone, well = other(broker, "gone"), other(broker, "well")
    await holding(broker, gone, 7)
    await holding(broker, well, 1)
    broker.ports = replace(broker.ports, issuers={k: v for k, v in broker.ports.issuers.items() if k != "gone"})
    broker.clock.tick(HOUR_MS)
    # All eight were ended in the record by another broker: what they are due by is the moment of that.
    unconfirmed = [(await sweep(broker.ports, memory)).unconfirmed for _ in range(3)]
    assert well.alive == {}
    assert unconfirmed == [8, 8, 7], "all are counted, not those alone that a round looked at"
    assert len(gone.alive) == 7


async def test_a_silent_issuer_is_asked_about_a_few_and_about_others_in_the_next_round(
    broker: Hand, issuer: OutsideIssuer, memory: Sweeping
) -> None:
    """Some logins may be all that it cannot drop: those that were not tried come first."""
    await holding(broker, issuer, 12)
    *bad, good = issuer.alive
    broker.clock.tick(HOUR_MS)
    few = taking_back.SILENT_TIMES + taking_back.AT_ONCE - 1
    async with answers(issuer, set(bad), IssuerUnavailable("500")) as asked:
        first = await sweep(broker.ports, memory)
        assert first.failed == (), "that is the issuer's, and told by the credentials that stay"
        assert taking_back.SILENT_TIMES <= len(asked) <= few
        for _ in range(3):
            await sweep(broker.ports, memory)
        assert good in asked
    assert good not in issuer.alive


async def test_what_of_one_run_cannot_be_read_keeps_nothing_else_waiting(
    broker: Hand, issuer: OutsideIssuer, memory: Sweeping, tmp_path: Path
) -> None:
    ended = str((await broker.open("ended", who="ended"))["run"])
    await end(broker.ports, broker.agent("ended"), ended, 1, "completed", Result(None), broker.request())
    runs = await holding(broker, issuer, 3)
    spoil(tmp_path, broker, runs[0])
    broker.ports = with_limits(broker.ports, kept_ms={"completed": 1})
    broker.clock.tick(HOUR_MS)
    swept = await sweep(broker.ports, memory)
    assert {(one.work, one.run) for one in swept.failed} == {("park", runs[0]), ("take_back", runs[0])}
    assert {one.code for one in swept.failed} == {"ledger_unavailable"}
    assert (swept.parked, swept.confirmed, swept.unconfirmed, swept.erased) == (2, 2, 1, 1)
    assert len(issuer.alive) == 1


async def test_a_run_that_cannot_be_parked_hides_no_later_one(
    broker: Hand, memory: Sweeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 1)
    runs = []
    for name in ("one", "two"):
        runs.append(str((await broker.open(name, who=name))["run"]))
        broker.clock.tick(10)
    spoil(tmp_path, broker, runs[0])
    broker.clock.tick(31_000)
    assert (await sweep(broker.ports, memory)).parked == 0
    swept = await sweep(broker.ports, memory)
    assert (swept.parked, swept.failed) == (1, ())
    broker.clock.tick(misses.REST_MS)
    assert [one.run for one in (await sweep(broker.ports, memory)).failed] == [runs[0]]


async def test_a_store_that_fails_for_all_is_not_asked_about_each(broker: Hand, memory: Sweeping) -> None:
    for name in "abcdef":
        await broker.open(name, who=name)
    broker.clock.tick(31_000)

    def gone() -> None:
        raise OSError(5, "gone")

    broker.failpoints.armed = {"store.before_apply": gone}
    swept = await sweep(broker.ports, memory)
    assert (swept.parked, len(swept.failed), type(swept.fault)) == (0, sweeping.FAILED_TIMES, StoreUnavailable)
    broker.failpoints.armed = {}
    assert (await sweep(broker.ports, memory)).parked == 3, "those that were not tried"
    broker.clock.tick(misses.REST_MS)
    assert (await sweep(broker.ports, memory)).parked == 3


async def test_an_issuer_that_hangs_holds_up_neither_the_parking_nor_another_nor_the_next_round(
    broker: Hand, issuer: OutsideIssuer, memory: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here waits for its own limit: each limit is an hour, but for how long the first round waits."""
    monkeypatch.setattr(leases, "TAKE_BACK_S", 3600.0)
    monkeypatch.setattr(taking_back, "LONGEST_S", 3600.0)
    well, revoking, answer, asked = other(broker, "well"), issuer.revoke, asyncio.Event(), list[str]()
    await holding(broker, issuer, 6)
    await holding(broker, well, 1)

    async def hang(*, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        asked.append(jti)
        await answer.wait()
        return await revoking(tenant=tenant, jti=jti, handle=handle, lease=lease, now=now)

    issuer.revoke = hang  # type: ignore[method-assign]
    broker.clock.tick(31_000)
    monkeypatch.setattr(sweeping, "WAITED_S", 0.05)
    swept = await sweep(broker.ports, memory)
    assert swept.parked == 7
    monkeypatch.setattr(sweeping, "WAITED_S", 3600.0)
    broker.clock.tick(31_000)
    while well.alive:
        await sweep(broker.ports, memory)
    assert len(asked) <= taking_back.AT_ONCE, "what is under way is neither begun again nor waited for"
    assert len(issuer.alive) == 6
    answer.set()
    while issuer.alive:
        await sweep(broker.ports, memory)
    assert len(asked) == 6


async def test_an_issuer_that_hung_once_is_not_asked_again_in_that_round(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await holding(broker, issuer, 9)
    asked = list[str]()

    async def hang(*, jti: str, **_: object) -> bool:
        asked.append(jti)
        await asyncio.sleep(3600)
        return True

    issuer.revoke = hang  # type: ignore[method-assign]
    broker.clock.tick(HOUR_MS)
    monkeypatch.setattr(taking_back, "LONGEST_S", 0.05)
    assert (await sweep(broker.ports)).unconfirmed == 9
    assert len(asked) <= taking_back.AT_ONCE


async def test_the_kill_switch_has_stopped_all_runs_before_it_waits_for_an_issuer(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    runs, seen, revoking = await holding(broker, issuer, 3), list[bool](), issuer.revoke

    async def revoke(*, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        seen.extend([("run_quarantined" in await broker.entries(run)) for run in runs])
        return await revoking(tenant=tenant, jti=jti, handle=handle, lease=lease, now=now)

    issuer.revoke = revoke  # type: ignore[method-assign]
    await quarantine(broker.ports, broker.operator, "agent", "agent")
    assert seen == [True] * 9
    assert issuer.alive == {}


async def test_the_kill_switch_stops_the_others_when_one_run_cannot_be(
    broker: Hand, issuer: OutsideIssuer, tmp_path: Path
) -> None:
    runs = await holding(broker, issuer, 3)
    spoil(tmp_path, broker, runs[0])
    with pytest.raises(Exception, match="does not unwrap"):
        await quarantine(broker.ports, broker.operator, "agent", "agent")
    assert [("run_quarantined" in await broker.entries(run)) for run in runs] == [False, True, True]
    assert len(issuer.alive) == 1


async def test_a_call_that_takes_back_from_two_issuers_is_held_up_by_one_of_them_alone(
    broker: Hand, issuer: OutsideIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TAKE_BACK_S", 3600.0)
    well, revoking, answer = other(broker, "well"), issuer.revoke, asyncio.Event()
    await holding(broker, issuer, leases.AT_ONCE)
    await holding(broker, well, 1)

    async def until_the_other_answered(
        *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int
    ) -> bool:
        await answer.wait()
        return await revoking(tenant=tenant, jti=jti, handle=handle, lease=lease, now=now)

    issuer.revoke = until_the_other_answered  # type: ignore[method-assign]
    well.hooks["revoke"] = answer.set
    await quarantine(broker.ports, broker.operator, "agent", "agent")
    assert (issuer.alive, well.alive) == ({}, {})
