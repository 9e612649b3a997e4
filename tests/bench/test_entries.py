"""What the bench fills a database with are entries as the broker makes them, in whole chains."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from bench import entries
from conformance.store.making import SetClock
from stepgrant.receipt import read_event
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.store import schema
from stepgrant_broker.store.connecting import url_of
from stepgrant_broker.store.sqlite import SqliteStore

COUNT = entries.CHAIN + 120


async def test_they_are_read_chained_and_wait_for_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    schema.migrate(url_of(path))
    entries.fill(path, COUNT)
    store = SqliteStore(path, clock=SetClock())
    for number, length in ((0, entries.CHAIN), (1, 120)):
        prev, run = GENESIS, entries.run_id(number)
        for stored in await store.entries("default", run, limit=COUNT):
            event = read_event(stored.data, stored.seq)
            assert (event.fields["prev"], event.fields["run"], stored.leaf_index) == (prev, run, None)
            prev = event.hash
        assert stored.seq == length - 1
    assert len((await store.log_tail(2 * COUNT)).leaves) == COUNT
    await store.close()
    with closing(connect(path)) as db:
        assert db.execute("SELECT count(DISTINCT hash) FROM entries").fetchone() == (COUNT,)


def test_a_template_that_is_not_what_the_domain_seals_fills_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    schema.migrate(url_of(path))
    monkeypatch.setattr(entries, "STARTS_AT", 1)
    known = entries.sealed(3)
    monkeypatch.setattr(entries, "sealed", lambda count: [*known[: count - 1], b"{}"])
    with pytest.raises(ValueError, match="domain seals"):
        entries.fill(path, 3)
    with closing(connect(path)) as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (0,)
