"""What a commit of a held run writes: the indexes by which others find runs take no page of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from conformance.store.making import NOW, Chain, SetClock, a_grant, a_step
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database

FRAME = 4096 + 24
LOOKED_BY = ("ix_runs_awake", "ix_runs_resting", "ix_run_epochs_held", "ix_approvals_pending")
WITHOUT = [f"DROP INDEX {name}" for name in LOOKED_BY]
OVER_OPEN = ["CREATE INDEX ix_open ON runs (tenant, id) WHERE state = 'open'"]


def pages(log: Path) -> int:
    """Pages in the write-ahead log."""
    return (os.stat(log).st_size - 32) // FRAME  # noqa: PTH116 - its file may be open


async def begun(folder: Path, name: str, changes: Sequence[str] = ()) -> int:
    """Pages of ten commits like those of `begin`, each of another run, beside runs that are parked and rest."""
    path = folder / f"{name}.db"
    new_database(path)
    with sqlite3.connect(path) as db:
        for change in changes:
            db.execute(change)
    db.close()
    store = SqliteStore(path, clock=SetClock())
    held = [Chain.of_run(key=f"k{n}", id=f"run_{n:026d}") for n in range(400)]
    for number, chain in enumerate(held):
        if number % 2:
            chain.row = Chain.of_run(
                key=f"k{number}", id=f"run_{number:026d}", state=RunState.PARKED, park_reason="suspended", parked_at=NOW
            ).row
        await store.commit(chain.adds(1, lease_until=NOW))
    if not changes:
        assert await store.let_rest() > 0
    await store.close()
    store = SqliteStore(path, clock=SetClock())
    log = path.with_name(f"{path.name}-wal")
    await store.commit(held[0].adds(1, lease_until=NOW + 1))
    before = pages(log)
    for number, chain in enumerate(held[2:22:2]):
        step = a_step(chain.the_run, key="s", position=1)
        rows = (step, a_grant(chain.the_run, "s", jti=f"jti_{number:026d}"))
        await store.commit(chain.adds(2, rows=rows, lease_until=NOW + 60_000, guard=0))
    written = pages(log) - before
    await store.close()
    return written


async def test_a_begin_writes_no_page_more_for_them(tmp_path: Path) -> None:
    written = await begun(tmp_path, "as it is")
    assert written == await begun(tmp_path, "without", WITHOUT)
    assert written < await begun(tmp_path, "over open runs", OVER_OPEN)
