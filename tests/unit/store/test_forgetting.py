"""Forgetting walks over the keys: a large table in parts, each call going on where the last one stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.store.making import NOW, Chain, SetClock, a_proof
from stepgrant_broker.store import forgetting
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database


async def test_a_large_table_is_walked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "STRETCH", 10)
    monkeypatch.setattr("stepgrant_broker.store.keeping.STRETCHES", 2)
    path = tmp_path / "store.db"
    new_database(path)
    store = SqliteStore(path, clock=SetClock())
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    for number in range(45):
        await store.commit(chain.bare(proof=a_proof(NOW if number % 2 else NOW + 99)))
    gone = [await store.forget_expired(NOW) for _ in range(6)]
    assert max(gone) <= 22
    assert sum(gone) == 22
    assert gone[3:] == [0, 0, 0]
    gone += [await store.forget_expired(NOW + 99) for _ in range(3)]
    assert sum(gone) == 45
    await store.close()
