"""Where a broker keeps its newest head outside the database, and what becomes of a head that cannot be kept."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from fakes.putback import JWK
from fakes.wired import Made, until
from logs import backed_up
from stepgrant import tlog
from stepgrant_broker.api.health import Health
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.restoring import StoreRolledBack
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.wiring import Broker
from stepgrant_broker.wiring.doctor.findings import State
from stepgrant_broker.wiring.doctor.records import newest


async def told(broker: Broker) -> list[tuple[str, State]]:
    return [(found.name, found.state) async for found in newest(broker)]


async def test_it_is_kept_beside_the_keys_before_anybody_is_shown_it(broker: Broker) -> None:
    kept = broker.settings.keys_folder / "newest-head"
    assert await told(broker) == [("newest", State.WARN)]
    await broker.log.catch_up()
    assert kept.read_bytes() == await broker.log.head()
    assert await told(broker) == [("newest", State.OK)]


async def test_it_can_be_kept_elsewhere_and_what_cannot_be_kept_does_not_count(made: Made, tmp_path: Path) -> None:
    """The folder of the keys may be read-only, as mounted secrets are."""
    elsewhere = tmp_path / "elsewhere"
    async with made(log_newest_dir=elsewhere) as broker:
        with pytest.raises(StoreUnavailable, match="the newest head cannot be kept at"):
            await broker.log.catch_up()
        assert await broker.log.head() is None
        elsewhere.mkdir()
        await broker.log.catch_up()
        head = await broker.log.head()
        assert head is not None
        assert (elsewhere / "newest-head").read_bytes() == head
        assert not (broker.settings.keys_folder / "newest-head").exists()


async def test_a_head_of_another_database_stops_the_start(made: Made, tmp_path: Path) -> None:
    """Two databases were given one folder of keys, or the settings name the wrong database."""
    async with made() as broker:
        await broker.log.catch_up()
        head = tlog.read_signed_head(await broker.log.head() or b"")[0]
    kept = tmp_path / "broker" / "keys" / "newest-head"
    other = kept.read_bytes().replace(head.origin.encode(), b"other.example/log")
    kept.write_bytes(other)
    with pytest.raises(StoreRolledBack, match=r"knows 'other\.example/log' at"):
        async with made():
            pytest.fail("a broker started beside the head of another log")
    assert kept.read_bytes() == other


async def test_a_broker_whose_database_went_back_under_it_is_not_ready_and_counts_it(
    broker: Broker, events: list[MutableMapping[str, Any]]
) -> None:
    """What a failover to a standby that lagged does."""
    await broker.log.catch_up()
    database = broker.settings.database_file
    kept = database.with_name("kept.db")
    backed_up(database, kept)
    await enroll(broker.ports, "default", None, Enrolment("later", ("later",), (), JWK, "j9"))
    await broker.log.catch_up()
    health = Health(broker.ports, broker.log.continues)
    assert (await health.checks())["log"] == "ok"
    backed_up(kept, database)
    await broker.sequencing.stop()
    broker.sequencing._every_ms = broker.sequencing._wait_ms = 10
    broker.sequencing.start()
    await until(lambda: any(one["event"] == "round_failed" for one in events))
    assert await Health(broker.ports, broker.log.continues).checks() == {
        "store": "ok", "policy": "ok", "signer": "ok", "log": "failed",
    }  # fmt: skip
    assert 'stepgrant_log_errors_total{kind="StoreRolledBack"}' in broker.metrics.text()
