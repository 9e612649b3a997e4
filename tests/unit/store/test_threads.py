"""The store's threads outlive their callers, never hold a process back, and keep nothing of what they did."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from conformance.store.making import Chain, Gate, Raising, SetClock
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store.asking import Plan
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database

FORGETFUL = """
import asyncio, sys
from pathlib import Path
from typing import Any
from conformance.store.making import Chain, SetClock
from stepgrant_broker.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]), clock=SetClock())
    await store.commit(Chain.of_run().adds(1))
    await store.tenants()

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    new_database(path)
    return path


def test_a_store_that_nobody_closed_lets_its_process_end(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(name for name in sys.path if name)}
    command = [sys.executable, "-c", FORGETFUL, str(path)]
    subprocess.run(command, env=environment, timeout=120, check=True)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    db.close()


def test_an_event_loop_that_ended_before_its_answer(path: Path) -> None:
    """Its sets are written all the same, and the next loop is served."""
    gate, chain = Gate(), Chain.of_run()

    async def leave() -> SqliteStore:
        store = SqliteStore(path, clock=SetClock(), failpoints=gate)
        left = asyncio.ensure_future(store.commit(chain.adds(1)))
        await asyncio.to_thread(gate.reached.wait, 60)
        left.cancel()
        return store

    async def come(store: SqliteStore) -> None:
        assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
        await store.commit(chain.adds(1))
        await store.close()

    store = asyncio.run(leave())
    gate.open()
    while store.commits == 0:
        asyncio.run(asyncio.sleep(0.01))
    asyncio.run(come(store))


async def test_a_failpoint_that_raises_where_nobody_waits(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(path, clock=SetClock(), failpoints=Raising("store.after_reply", ValueError("late")))
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    await store.commit(chain.adds(1))
    assert "where nobody waits" in caplog.text
    await store.close()


async def test_an_error_before_anything_was_applied(path: Path) -> None:
    store = SqliteStore(path, clock=SetClock(), failpoints=Raising("store.before_apply", ValueError("a secret")))
    chain = Chain.of_run()
    with pytest.raises(StoreUnavailable) as caught:
        await store.commit(chain.copy().adds(1))
    assert "secret" not in str(caught.value)
    await store.commit(chain.adds(1))
    await store.close()


async def test_nothing_is_kept_while_waiting(path: Path) -> None:
    """What was written and read last must not stay in memory until the next call comes."""

    class Kept:
        def __call__(self, *_: object) -> Kept:
            return Kept()

    class Looks:
        def __call__(self) -> Plan[Kept]:
            yield []
            return Kept()

    store = SqliteStore(path, clock=SetClock())
    write, read = Kept(), Looks()
    seen: list[weakref.ref[Any]] = [weakref.ref(write), weakref.ref(read)]
    seen.append(weakref.ref(await store._writer.inbox.put(write)))
    seen.append(weakref.ref(await store._run(read)))
    del write, read
    for _ in range(100):
        gc.collect()
        if not any(one() for one in seen):
            break
        await asyncio.sleep(0.05)
    assert [one() for one in seen] == [None] * 4
    await store.close()


async def test_a_load_does_not_wait_for_a_commit(path: Path) -> None:
    gate, chain = Gate("store.before_commit"), Chain.of_run()
    store = SqliteStore(path, clock=SetClock(), failpoints=gate)
    committing = asyncio.create_task(store.commit(chain.adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    assert (await store.load(Query("acme", run=chain.run))).view.run is None
    gate.open()
    await committing
    assert (await store.load(Query("acme", run=chain.run))).view.run is not None
    await store.close()
