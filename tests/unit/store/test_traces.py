"""What an erasure leaves in the files of a SQLite database: nothing of its payloads, and nothing of its key."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from conformance.store.making import NOW, Chain, SetClock, a_payload
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store import connecting, schema
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore

WRAP: Final = LocalWrap([b"w" * 32], b"r" * 32)
RUNS: Final = 120
LARGE: Final = 20_000
"""Over a page: such a body lies in pages of its own."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "store.db"
    schema.migrate(connecting.url_of(found))
    return found


def marker(chain: Chain, size: int = 40) -> bytes:
    """What the run's payloads say again and again, so that pieces of it are found too."""
    return (hashlib.sha256(str(chain.run).encode()).hexdigest()[:20] * (size // 20)).encode()


async def fill(store: SqliteStore, number: int) -> list[Chain]:
    """Ended runs with small and large payloads."""
    chains = [Chain.of_run() for _ in range(number)]
    for at, chain in enumerate(chains):
        run = str(chain.run)
        key = ChainKey("acme", run, WRAP.wrap(b"k" * 32, aad.chain_key("acme", run)))
        bodies = (marker(chain), marker(chain, LARGE if at % 7 == 0 else 400))
        await store.commit(
            chain.adds(
                1,
                change={"state": RunState.COMPLETED, "ended_at": NOW},
                rows=(key,),
                payloads=[a_payload(body) for body in bodies],
            )
        )
    return chains


def files(path: Path) -> bytes:
    """Everything that a thief of the folder gets."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def wrapped(path: Path) -> dict[str, bytes]:
    """By run, the wrapped key that is to be destroyed, read past the store."""
    db = sqlite3.connect(path)
    found = dict(db.execute("SELECT run, ciphertext FROM chain_keys").fetchall())
    db.close()
    return found


async def test_nothing_is_left_in_any_file(path: Path) -> None:
    """Neither in rows, nor in pages that were split, merged or freed, nor in the log; other runs keep their keys.

    SQLite may leave a copy of a row where it once stood. Of a payload that is ciphertext without a key.
    """
    store = SqliteStore(path, clock=SetClock(), seal=Seal(WRAP))
    try:
        chains = await fill(store, RUNS)
        known, there = wrapped(path), files(path)
        assert all(key in there for key in known.values()), "the search would find them"
        gone = random.Random(7).sample(chains, RUNS // 2)
        for chain in gone:
            await store.commit(chain.adds(1, change={"erased_at": NOW + 1}, destroy=True))
        left, names = files(path), {str(chain.run) for chain in gone}
        assert {run for run, key in known.items() if key not in left} == names
        assert not any(marker(chain) in left for chain in chains)
    finally:
        await store.close()


async def test_the_log_is_cut_once_readers_let_it(path: Path) -> None:
    """A reader of an older state keeps the log; the next sweep cuts it."""
    store = SqliteStore(path, clock=SetClock(), seal=Seal(WRAP))
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        (chain,) = await fill(store, 1)
        trace = wrapped(path)[str(chain.run)]
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        await store.commit(chain.adds(1, change={"erased_at": NOW + 1}, destroy=True))
        assert trace in files(path)
        reader.execute("COMMIT")
        await store.forget_expired(NOW)
        assert trace not in files(path)
    finally:
        reader.close()
        await store.close()


async def test_the_first_sweep_of_a_process_cuts_what_a_crash_left(path: Path) -> None:
    """The process that erased died before it could cut the log."""
    first = SqliteStore(path, clock=SetClock(), seal=Seal(WRAP))
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        (chain,) = await fill(first, 1)
        trace = wrapped(path)[str(chain.run)]
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        await first.commit(chain.adds(1, change={"erased_at": NOW + 1}, destroy=True))
        reader.execute("COMMIT")
        second = SqliteStore(path, clock=SetClock(), seal=Seal(WRAP))
        assert trace in files(path)
        await second.forget_expired(NOW)
        assert trace not in files(path)
        await second.close()
    finally:
        reader.close()
        await first.close()
