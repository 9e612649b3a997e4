"""The sweeper goes on whatever happens in a round, and waits longer while it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import StandingClock
from fakes.hand import Hand, hand
from fakes.outside import LOGIN, OutsideIssuer
from fakes.wired import until
from stepgrant_broker.api.metrics import Metrics
from stepgrant_broker.domain.errors import SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.reads import Backlog
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.misses import LONGEST_MS
from stepgrant_broker.wiring import Broker
from stepgrant_broker.wiring import sweeper as rounds
from stepgrant_broker.wiring.rounds import LONGEST_WAIT_MS
from stepgrant_broker.wiring.sweeper import ALARM_MS, Sweeper

WAITS = ("log_entries_waiting", "log_oldest_waiting_seconds", "runs_parked", "approvals_pending")
JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


async def test_a_round_counts_what_it_did(broker: Broker) -> None:
    assert await broker.sweep_now() == 0
    assert "stepgrant_sweeps_total 1" in broker.metrics.text()


async def test_a_round_by_hand_tells_its_failure(broker: Broker) -> None:
    await broker.store.close()
    with pytest.raises(StoreUnavailable):
        await broker.sweep_now()


class Stumbling:
    """The broker's reads, with these failures first."""

    def __init__(self, broker: Broker, *failures: Exception) -> None:
        self._reads = broker.ports.reads
        self._failures = list(failures)

    async def now(self) -> int:
        if self._failures:
            raise self._failures.pop(0)
        return await self._reads.now()

    def __getattr__(self, name: str) -> object:
        return getattr(self._reads, name)


async def test_it_survives_failures_of_every_kind_and_recovers(broker: Broker) -> None:
    reads = Stumbling(broker, StoreUnavailable("the disk is full"), ZeroDivisionError("a bug"))
    ports = replace(broker.ports, reads=reads)  # type: ignore[arg-type]  # by __getattr__ it is all of Reads
    sweeper = Sweeper(ports, broker.metrics, 10)
    sweeper.start()
    try:
        await until(lambda: _swept(broker) >= 2)
    finally:
        await sweeper.stop()
    assert (sweeper.failures, sweeper._wait_ms) == (2, 10)
    assert 'stepgrant_store_errors_total{kind="ZeroDivisionError"} 1' in broker.metrics.text()


def _swept(broker: Broker) -> int:
    return int(_metric(broker.metrics, "stepgrant_sweeps_total"))


def _metric(metrics: Metrics, name: str) -> float:
    line = next(line for line in metrics.text().splitlines() if line.startswith(f"{name} "))
    return float(line.rpartition(" ")[2])


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Hand, Metrics, Sweeper]]:
    """Use cases with a run whose lease has lapsed, and a sweeper over them."""
    async with hand(tmp_path) as made:
        await made.open()
        made.clock.tick(31_000)
        metrics = Metrics()
        yield made, metrics, Sweeper(made.ports, metrics, 1000)


GOOD = "stepgrant_sweep_last_success_timestamp_seconds"


async def test_a_single_thing_that_fails_is_told_and_counted_and_the_round_is_a_good_one(
    held: tuple[Hand, Metrics, Sweeper], events: list[MutableMapping[str, Any]]
) -> None:
    made, metrics, sweeper = held
    ((_, run),) = await made.ports.reads.lapsed(made.clock.now(), 10)
    assert _metric(metrics, GOOD) == 0
    failures = iter([OSError(5, "sgo_secret_in_a_message")])

    def once() -> None:
        for error in failures:
            raise error

    made.failpoints.armed = {"store.before_apply": once}
    assert await sweeper.round() == 0
    assert 'stepgrant_sweep_failures_total{work="park"} 1' in metrics.text()
    assert _metric(metrics, GOOD) > 1_700_000_000
    (said,) = [event for event in events if event["event"] == "sweep_failed"]
    assert (said["work"], said["run"], said["code"]) == ("park", run, "ledger_unavailable")
    assert "sgo_secret" not in repr(events)


async def test_a_round_that_the_store_fails_tells_what_it_found_and_is_no_good_one(
    held: tuple[Hand, Metrics, Sweeper],
) -> None:
    made, metrics, sweeper = held

    def full() -> None:
        raise OSError(28, "no space left")

    made.failpoints.armed = {"store.before_apply": full}
    with pytest.raises(StoreUnavailable):
        await sweeper.round()
    assert 'stepgrant_sweep_failures_total{work="park"} 1' in metrics.text()
    assert (_metric(metrics, "stepgrant_sweeps_total"), _metric(metrics, GOOD)) == (0, 0)


async def test_an_issuer_that_is_gone_while_its_credentials_are_due_is_told_once(
    held: tuple[Hand, Metrics, Sweeper], events: list[MutableMapping[str, Any]]
) -> None:
    made, metrics, _ = held
    known = made.ports
    made.ports = replace(known, issuers={**known.issuers, "outside": OutsideIssuer()})
    run = str((await made.open("other", who="k9"))["run"])
    await made.begin(run, decision=LOGIN, who="k9")
    made.clock.tick(31_000)
    sweeper = Sweeper(known, metrics, 1000)
    for _ in range(2):
        await sweeper.round()
        made.clock.tick(60_000)
    said = [event["issuer"] for event in events if event["event"] == "issuer_not_configured"]
    assert said == ["outside"]


async def test_credentials_that_may_live_too_long_are_an_alarm_until_their_death_is_confirmed(
    held: tuple[Hand, Metrics, Sweeper], events: list[MutableMapping[str, Any]]
) -> None:
    made, metrics, _ = held
    issuer = OutsideIssuer()
    made.ports = replace(made.ports, issuers={**made.ports.issuers, "outside": issuer})
    sweeper = Sweeper(made.ports, metrics, 1000)
    for number in (1, 2):
        await _left_outside(made, f"other-{number}")
        issuer.up = False
        await sweeper.round()
        assert _told_of_leases(metrics) == (1, 0)
        made.clock.tick(ALARM_MS)
        await sweeper.round()
        assert (_told_of_leases(metrics), len(_alarms(events))) == ((1, 60), number - 1)
        for waited in (61, 62):
            made.clock.tick(1000)
            await sweeper.round()
            assert (_told_of_leases(metrics), len(_alarms(events))) == ((1, waited), number)
        issuer.up = True
        made.clock.tick(LONGEST_MS)
        await sweeper.round()
        assert (_told_of_leases(metrics), len(_alarms(events)), issuer.alive) == ((0, 0), number, {})
    assert [(said["unconfirmed"], said["oldest_s"]) for said in _alarms(events)] == [(1, 61), (1, 61)]


async def _left_outside(made: Hand, key: str) -> None:
    """A login of a run whose holder is gone since."""
    run = str((await made.open(key, who=key))["run"])
    await made.begin(run, decision=LOGIN, who=key)
    made.clock.tick(31_000)


def _told_of_leases(metrics: Metrics) -> tuple[float, float]:
    """How many credentials outside may live, and for how long the oldest is due."""
    return _metric(metrics, "stepgrant_leases_unconfirmed"), _metric(metrics, "stepgrant_leases_oldest_due_seconds")


def _alarms(events: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [event for event in events if event["event"] == "leases_not_confirmed"]


async def test_stopping_ends_what_is_under_way_at_issuers(broker: Broker) -> None:
    sweeper = Sweeper(broker.ports, broker.metrics, 1000)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def asking() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    sweeper._memory.outside._under_way["frozen"] = asyncio.create_task(asking())
    await begun.wait()
    await sweeper.stop()
    assert ended.is_set()


async def test_it_waits_longer_each_time_up_to_a_limit(broker: Broker, events: list[MutableMapping[str, Any]]) -> None:
    sweeper = Sweeper(broker.ports, broker.metrics, 1000)
    waits = []
    for _ in range(7):
        sweeper._failed("ledger_unavailable", StoreUnavailable("sgo_secret_in_a_message"))
        waits.append(sweeper._wait_ms)
    assert waits[:3] == [2000, 4000, 8000]
    assert waits[-1] == LONGEST_WAIT_MS
    assert sweeper.failures == 7
    said = [event for event in events if (event["event"], event.get("work")) == ("round_failed", "sweeper")]
    assert len(said) == 7
    assert "sgo_secret" not in repr(said)


class Counting(Stumbling):
    """The broker's reads; what waits is counted in its own way, and how often is noted."""

    def __init__(self, broker: Broker, waits: Backlog | Exception) -> None:
        super().__init__(broker)
        self.waits = waits
        self.times = 0

    async def backlog(self, _: int) -> Backlog:
        self.times += 1
        if isinstance(self.waits, Exception):
            raise self.waits
        return self.waits


def _counting(broker: Broker, waits: Backlog | Exception) -> tuple[Sweeper, Counting]:
    reads = Counting(broker, waits)
    return Sweeper(replace(broker.ports, reads=reads), broker.metrics, 1000), reads  # type: ignore[arg-type]


async def test_what_waits_is_told_and_counted_now_and_then(
    broker: Broker, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MEASURED_S", 3600.0)
    sweeper, reads = _counting(broker, Backlog(12, clock.now() - 1500, 3, 4))
    await sweeper.round()
    await sweeper.round()
    assert reads.times == 1
    told = {name: _metric(broker.metrics, f"stepgrant_{name}") for name in WAITS}
    assert told == dict(zip(WAITS, (12, 1.5, 3, 4), strict=True))

    reads.waits = Backlog(0, None, 0, 0)
    sweeper._measure_at = 0.0
    await sweeper.round()
    assert reads.times == 2
    assert {_metric(broker.metrics, f"stepgrant_{name}") for name in WAITS} == {0}


async def test_the_broker_counts_what_waits_in_its_first_round(broker: Broker) -> None:
    await broker.sequencing.stop()
    await enroll(broker.ports, "default", None, Enrolment("late", ("late",), (), JWK, "j1"))
    waiting = len((await broker.store.log_tail(100)).leaves)
    await broker.sweep_now()
    assert _metric(broker.metrics, "stepgrant_log_entries_waiting") == waiting > 0


async def test_that_nothing_can_be_counted_keeps_no_sweeping_waiting(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MEASURED_S", 3600.0)
    sweeper, reads = _counting(broker, StoreUnavailable("it takes too long"))
    with pytest.raises(StoreUnavailable, match="too long"):
        await sweeper.round()
    assert _swept(broker) == 1
    await sweeper.round()  # nor is it tried again at once
    assert (reads.times, _swept(broker)) == (1, 2)


async def test_a_key_that_cannot_be_read_does_not_keep_the_sweeping_waiting(broker: Broker) -> None:
    """A damaged newer wrap key is told; the round was made, and what was known goes on wrapping."""
    before = broker.ports.wrap.key_id
    damaged = broker.settings.keys_folder / "wrap-2.key"
    damaged.write_bytes(b"no key")
    damaged.chmod(0o600)
    with pytest.raises(SignerUnavailable, match="is damaged"):
        await broker.sweep_now()
    assert "stepgrant_sweeps_total 1" in broker.metrics.text()
    assert broker.ports.wrap.wrap(b"x", b"here").key_id == before
    damaged.unlink()
    await broker.sweep_now()


async def test_a_round_that_fails_has_looked_for_keys_first(broker: Broker) -> None:
    """What is under a key that this process does not know yet would make every round fail, and the look come never."""
    before = broker.ports.wrap.key_id
    made = broker.settings.keys_folder / "wrap-2.key"
    made.write_text("B" * 42 + "A")
    made.chmod(0o600)
    sweeper = Sweeper(replace(broker.ports, reads=Stumbling(broker, StoreUnavailable("full"))), broker.metrics, 1000)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="full"):
        await sweeper.round()
    assert broker.ports.wrap.key_id != before
