"""The sequencer's rounds go on whatever happens in one, and say what they did."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from cosigners import Cosigners
from fakes.wired import Made, until
from policies import ALLOW
from stepgrant import tlog
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.ledger import pacing
from stepgrant_broker.ledger import sequencer as rounds
from stepgrant_broker.wiring import bundle_of
from stepgrant_broker.wiring.sequencing import Sequencing

if TYPE_CHECKING:
    from stepgrant_broker.ledger.sequencer import Sequencer
    from stepgrant_broker.wiring import Broker


class Stumbling:
    """The broker's sequencer, with these failures first."""

    def __init__(self, sequencer: Sequencer, *failures: Exception) -> None:
        self._sequencer = sequencer
        self._failures = list(failures)

    async def integrate(self) -> int:
        if self._failures:
            raise self._failures.pop(0)
        return await self._sequencer.integrate()

    def __getattr__(self, name: str) -> object:
        return getattr(self._sequencer, name)


async def test_it_survives_failures_of_every_kind_and_integrates_what_waits(
    broker: Broker, events: list[MutableMapping[str, Any]]
) -> None:
    stumbling = Stumbling(broker.sequencing._sequencer, SignerUnavailable("sgo_secret"), ZeroDivisionError("a bug"))
    sequencing = Sequencing(cast("Sequencer", stumbling), broker.metrics, 10)
    sequencing.start()
    try:
        await until(lambda: sequencing.failures == 2 and sequencing._wait_ms == 10)
    finally:
        await sequencing.stop()

    said = [(event["work"], event["kind"]) for event in events if event["event"] == "round_failed"]
    assert said == [("sequencer", "SignerUnavailable"), ("sequencer", "ZeroDivisionError")]
    assert "sgo_secret" not in repr(events)
    text = broker.metrics.text()
    assert 'stepgrant_log_errors_total{kind="ZeroDivisionError"} 1' in text
    waiting = await broker.store.log_tail(1)
    assert not waiting.leaves
    assert f"stepgrant_log_counted_size {waiting.head.size}" in text


async def test_a_backlog_does_not_wait_for_the_next_round(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await broker.sequencing.stop()
    await broker.activate(bundle_of({"stepgrant/main.rego": ALLOW}))
    await broker.activate(bundle_of({"stepgrant/main.rego": ALLOW + "\n# another\n"}))
    waiting = len((await broker.store.log_tail(100)).leaves)
    assert waiting > 1
    monkeypatch.setattr(pacing, "ALONE", 1)
    monkeypatch.setattr(pacing, "BESIDE", 1)
    monkeypatch.setattr(rounds, "ROUND_S", 0.0)
    monkeypatch.setattr(rounds, "AT_LEAST", 1)
    assert await broker.sequencing.round() == waiting
    assert not (await broker.store.log_tail(1)).leaves


async def test_a_witness_that_is_away_is_counted_by_name(made: Made, tmp_path: Path) -> None:
    async with made() as first:
        vkey = (await first.log.vkeys())[0]
    away = Cosigners(["alice"], "quorum alice", tlog.read_vkey(vkey)).keys["alice"].vkey
    policy = tmp_path / "log.policy"
    policy.write_text(f"log {vkey}\nwitness alice {away} http://127.0.0.1:1\nquorum alice\n")
    async with made(create=False, log_policy_file=policy) as broker:
        await broker.log.catch_up()
        assert 'stepgrant_witness_refusals_total{witness="alice",kind="silent"}' in broker.metrics.text()
        assert "stepgrant_log_counted_size 0" in broker.metrics.text()


async def test_the_writers_queue_is_that_of_the_brokers_store(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(broker.store), "waiting", 7)
    assert "stepgrant_store_queue_length 7" in broker.metrics.text()
