"""The sweeper goes on whatever happens in a round, and waits longer while it fails."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from fakes.wired import until
from stepgrant_broker.domain.errors import SignerUnavailable, StoreUnavailable
from stepgrant_broker.wiring import Broker
from stepgrant_broker.wiring.rounds import LONGEST_WAIT_MS
from stepgrant_broker.wiring.sweeper import Sweeper


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
    line = next(line for line in broker.metrics.text().splitlines() if line.startswith("stepgrant_sweeps_total"))
    return int(line.rpartition(" ")[2])


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
