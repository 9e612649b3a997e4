"""One run that cannot be read keeps nobody's notes from being written, and stays awake itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from conformance.store.making import NOW, Chain, SetClock
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database


async def test_a_damaged_run_is_passed_by(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    new_database(path)
    store = SqliteStore(path, clock=SetClock())
    for name in ("a", "b", "c"):
        chain = Chain.of_run(
            key=name, id=f"run_{name * 26}", state=RunState.PARKED, park_reason="suspended", parked_at=NOW
        )
        await store.commit(chain.adds(1, lease_until=NOW, opens=False))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE runs SET labels = '{' WHERE key = 'b'")
    db.close()
    assert await store.let_rest() == 2
    with sqlite3.connect(path) as db:
        resting = db.execute("SELECT key FROM runs WHERE rests_seq = seq ORDER BY key").fetchall()
    db.close()
    assert resting == [("a",), ("c",)]
    await store.close()
