"""A full disk, a locked, damaged, moved or missing file: each a named error, nothing lost, and the store recovers."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conformance.store.making import Chain, SetClock, a_payload, a_proof, a_step
from stepgrant_broker.domain.errors import FateUnknown, StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store import connecting, schema
from stepgrant_broker.store.asking import Ask, Plan
from stepgrant_broker.store.faults import WriteSetMalformed, unavailable
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.store.statements import Text
from stepgrant_broker.wiring.fresh import new_database

FAULTY = Path(__file__).with_name("faulty.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "broker" / "store.db"
    new_database(path)
    return path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, clock=SetClock(), busy_ms=50)
    yield store
    await store.close()


async def present(store: SqliteStore, chain: Chain) -> bool:
    return (await store.load(Query("acme", run=chain.run))).view.run is not None


def move(path: Path, name: Path) -> None:
    path.replace(name)


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


def test_a_disk_that_cannot_grow(path: Path) -> None:
    """A real fault of the operating system: the file-size limit of a process, which is lifted again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(name for name in sys.path if name)}
    done = subprocess.run(
        [sys.executable, str(FAULTY), str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    met = json.loads(done.stdout)
    assert met["before"] == met["after"] == met["read"] == "ok"
    assert all("disk" in detail for detail in met["during"].split("|"))
    assert met["known"] == "True,False,False,False,True"


async def test_a_full_database_refuses_and_recovers(store: SqliteStore, path: Path) -> None:
    """SQLITE_FULL: the database may not have more pages, and later may."""
    await store.commit(Chain.of_run().adds(1))
    await store._writer.inbox.put(lambda db, _: db.execute("PRAGMA max_page_count = 60").fetchone())
    chains = [Chain.of_run() for _ in range(3)]
    for chain in chains:
        with pytest.raises(StoreUnavailable, match=r"disk is full.*SQLITE_FULL") as caught:
            await store.commit(chain.copy().adds(1, payloads=(a_payload(b"x" * 900_000),), proof=a_proof()))
        assert type(caught.value) is StoreUnavailable
        assert not await present(store, chain)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM proofs").fetchone() == (0,)
    db.close()
    await store._writer.inbox.put(lambda db, _: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    for chain in chains:
        await store.commit(chain.adds(1, payloads=(a_payload(b"x" * 900_000),)))
        assert await present(store, chain)


async def test_a_set_that_does_not_fit_takes_its_batch_along_but_nothing_else(store: SqliteStore) -> None:
    small, large = Chain.of_run(), Chain.of_run()
    await store._writer.inbox.put(lambda db, _: db.execute("PRAGMA max_page_count = 80").fetchone())
    calls = [
        store.commit(small.copy().adds(1)),
        store.commit(large.adds(1, payloads=(a_payload(b"x" * 900_000),))),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert type(outcomes[1]) is StoreUnavailable
    assert not await present(store, large)
    assert await present(store, small) == (outcomes[0] is None)


async def test_locked_by_another_process(store: SqliteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    chain = Chain.of_run()
    with pytest.raises(StoreUnavailable, match=r"another process holds.*SQLITE_BUSY") as caught:
        await store.commit(chain.copy().adds(1))
    assert caught.value.retry_after_ms
    assert not await present(store, chain)
    other.execute("ROLLBACK")
    other.close()
    await store.commit(chain.adds(1))
    assert await present(store, chain)


async def test_damaged_while_running(path: Path) -> None:
    """Everything but the first page is overwritten under the broker."""
    store = SqliteStore(path, clock=SetClock())
    chain = Chain.of_run()
    for _ in range(30):
        await store.commit(chain.adds(1, rows=(a_step(chain.the_run),), payloads=(a_payload(b"x" * 5000),)))
    db = sqlite3.connect(path, isolation_level=None)
    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    db.close()
    damage(path)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.load(Query("acme", run=chain.run, unfinished=True))
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.commit(Chain.of_run().adds(1))
    await store.close()


async def test_a_row_that_somebody_else_wrote(store: SqliteStore, path: Path) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    db = sqlite3.connect(path)
    db.execute("UPDATE runs SET state = 'root'")
    db.commit()
    db.close()
    with pytest.raises(StoreUnavailable, match="a row of runs is damaged") as caught:
        await store.load(Query("acme", run=chain.run))
    assert "root" not in str(caught.value)


async def test_moved_while_running(store: SqliteStore, path: Path) -> None:
    """What is written into a file without a name is lost with the process, so it is not acknowledged."""
    chain = Chain.of_run()
    await store.commit(Chain.of_run().adds(1))
    away = path.with_name("away.db")
    move(path, away)
    with pytest.raises(StoreUnavailable, match="gone"):
        await store.commit(chain.copy().adds(1))
    with pytest.raises(StoreUnavailable, match="gone"):
        await store.load(Query("acme"))
    move(away, path)
    assert not await present(store, chain)
    await store.commit(chain.adds(1))
    assert await present(store, chain)


async def test_replaced_while_running(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """A backup that is put in place of the file is not taken up: it lacks what was acknowledged since."""
    other = tmp_path / "other" / "store.db"
    schema.migrate(connecting.url_of(other))
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    move(other, path)
    with pytest.raises(StoreUnavailable, match="replaced by another"):
        await store.commit(chain.adds(1))
    with pytest.raises(StoreUnavailable, match="replaced by another"):
        await store.load(Query("acme", run=chain.run))


async def test_an_error_of_commit_itself_leaves_the_fate_unknown(store: SqliteStore) -> None:
    """A deferred foreign key is looked at by COMMIT alone, so this is an error of COMMIT and of nothing before it."""

    def orphan(db: sqlite3.Connection, _: int) -> None:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute("INSERT INTO run_epochs VALUES ('acme', 'none', 1, 'j', 'w', 's', 1, 0)")

    with pytest.raises(FateUnknown, match="Idempotency-Key"):
        await store._writer.inbox.put(orphan)
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    assert await present(store, chain)


async def test_the_database_is_for_its_owner_only(store: SqliteStore, path: Path) -> None:
    await store.commit(Chain.of_run().adds(1))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["store.db", "store.db-shm", "store.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_after_closing_one_file_holds_everything(path: Path) -> None:
    store = SqliteStore(path, clock=SetClock())
    await store.commit(Chain.of_run().adds(1))
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def asked(sql: str) -> Plan[object]:
    (found,) = yield [Ask(Text(sql, ()), ())]
    return found[0][0]


async def test_commits_are_durable_and_checked(store: SqliteStore) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema", "query_only")

    def of_writer(db: sqlite3.Connection, _: int) -> list[object]:
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store._writer.inbox.put(of_writer) == ["wal", 2, 1, 50, 0, 0]
    of_reader = [await store._run(lambda name=name: asked(f"PRAGMA {name}")) for name in names[3:]]  # type: ignore[misc]
    assert of_reader == [50, 0, 1]
    with pytest.raises(StoreUnavailable):
        await store._run(lambda: asked("DELETE FROM runs"))


@pytest.mark.parametrize("value", [{"tool": "a secret\ud800"}, {"attempt": 2**63}, {"tool": object()}, {"tool": None}])
async def test_what_the_database_cannot_hold(store: SqliteStore, value: dict[str, Any]) -> None:
    """It falls alone, by name, and its values are not repeated."""
    broken, other = Chain.of_run(), Chain.of_run()
    calls = [
        store.commit(broken.adds(1, rows=(a_step(broken.the_run, **value),), proof=a_proof())),
        store.commit(other.adds(1)),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WriteSetMalformed, type(None)]
    assert "secret" not in str(outcomes[0])
    assert not await present(store, broken)


def test_no_driver_error_passes_with_its_values() -> None:
    fault = unavailable(ValueError("a secret"))
    assert "secret" not in fault.detail
    assert "ValueError" in fault.detail
