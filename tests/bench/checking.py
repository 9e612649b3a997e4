"""`stepgrant ledger verify` over very many entries: how fast, and in how much memory.

The database holds one life of all kinds of entries that the real use cases wrote, and as many copies of it as were
asked for: each under names of its own, sealed and chained anew, with all its rows and stored values. So everything is
folded, compared and opened as in any other ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fakes.clock import StandingClock
from fakes.hand import hand
from fakes.tale import whole_life
from stepgrant import canonical
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import Kept
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck, TheLog
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore

TENANT: Final = "acme"
ORIGIN: Final = "broker.example/log"
GATE_S: Final = 30.0
GATE_ENTRIES: Final = 100_000
DATABASE: Final = Path("store", "stepgrant.db")
OF_RUN: Final = {"runs": "id", "run_epochs": "run", "steps": "run", "grants": "run", "approvals": "run"}
CLOCK: Final = StandingClock(1_800_001_000_000)
PREV: Final = re.compile(r'"prev":"[^"]*"')
NAMES: Final = re.compile(r"(run|grn|apr)_[0-9a-z]{26}")


@dataclass(frozen=True)
class Figures:
    """What a check took. `findings` must be 0."""

    entries: int
    seconds: float
    cpu_s: float
    rss_mib: float
    findings: int

    def __str__(self) -> str:
        rate = self.entries / self.seconds
        return (
            f"ledger verify: {self.entries} entries in {self.seconds:.1f} s ({rate:.0f}/s), "
            f"{self.cpu_s:.1f} s of CPU, {self.rss_mib:.0f} MiB, {self.findings} findings"
        )


def measure(entries: int) -> Figures:
    """Write a ledger of about so many entries and check it. Raises `RuntimeError` if anything is found in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(_write(folder))
        multiply(folder, entries)
        asyncio.run(_integrate(folder))
        figures = asyncio.run(check(folder))
    if figures.findings:
        raise RuntimeError(f"{figures.findings} findings in a ledger that nobody touched")
    return figures


async def _write(folder: Path) -> None:
    async with hand(folder) as held:
        await whole_life(held)


def multiply(folder: Path, entries: int) -> None:
    """Copies of the one run until there are about so many entries."""
    wrap = LocalWrap.open(folder / "keys")
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        db.execute("PRAGMA synchronous = OFF")
        life = _Life(db, wrap)
        for number in range(1, max(1, entries // len(life.entries))):
            life.copy(db, wrap, number)
        db.commit()


class _Life:
    """The one run: its rows, with its names in them, its values, and the key of its chain."""

    def __init__(self, db: sqlite3.Connection, wrap: LocalWrap) -> None:
        (self.run,) = db.execute("SELECT id FROM runs").fetchone()
        query = "SELECT type, step, ts, data FROM entries WHERE chain = ? ORDER BY seq"
        self.entries = db.execute(query, (self.run,)).fetchall()
        self.rows = {table: _read(db, table, column, self.run) for table, column in OF_RUN.items()}
        (key,) = _read(db, "chain_keys", "run", self.run)
        wrapped = Wrapped(key["key_id"], key["nonce"], key["ciphertext"])
        self.key = wrap.unwrap(wrapped, aad.chain_key(TENANT, self.run))
        kept = [
            Kept(row["c"], row["field"], row["form"], row["body"], row["key_id"], row["nonce"])
            for row in _read(db, "payloads", "chain", self.run)
        ]
        self.values = list(Seal(wrap).opened(ChainKey(TENANT, self.run, wrapped), kept).values())

    def copy(self, db: sqlite3.Connection, wrap: LocalWrap, number: int) -> None:
        """The same life once more, under other names."""

        def renamed(text: str) -> str:
            text = NAMES.sub(lambda found: f"{found[0][:-12]}{number:06d}{found[0][-6:]}", text)
            return text.replace("nightly", f"nightly-{number}")

        run, prev = renamed(self.run), canonical.b64u(bytes(32))
        sealed: list[tuple[Any, ...]] = []
        for seq, (kind, step, ts, data) in enumerate(self.entries):
            text = PREV.sub(f'"prev":"{prev}"', renamed(data.decode()), count=1).encode()
            digest = hashlib.sha256(text).digest()
            prev = canonical.b64u(digest)
            sealed.append((TENANT, run, seq, kind, step, ts, digest, text))
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", sealed)
        key = wrap.wrap(self.key, aad.chain_key(TENANT, run))
        _insert(db, "chain_keys", tenant=TENANT, run=run, **vars_of(key))
        for table, rows in self.rows.items():
            for row in rows:
                named = {name: renamed(one) if isinstance(one, str) else one for name, one in row.items()}
                _insert(db, table, **(named | {"head": prev} if table == "runs" else named))
        for kept in Seal(wrap).sealed(ChainKey(TENANT, run, key), self.values):
            _insert(db, "payloads", tenant=TENANT, chain=run, expires_at=None, **vars_of(kept))


def vars_of(value: Kept | Wrapped) -> dict[str, Any]:
    """The members of a value by name."""
    return {name: getattr(value, name) for name in type(value).__match_args__}


def _read(db: sqlite3.Connection, table: str, column: str, run: str) -> list[dict[str, Any]]:
    cursor = db.execute(f"SELECT * FROM {table} WHERE {column} = ?", (run,))  # noqa: S608 - our own tables
    names = [name for name, *_ in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _insert(db: sqlite3.Connection, table: str, **columns: object) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608 - our own tables


async def _integrate(folder: Path) -> None:
    store = SqliteStore(folder / DATABASE, clock=CLOCK)
    try:
        sequencer = Sequencer(store, LocalSigner.open(folder / "keys"), CLOCK, await store.log_origin(ORIGIN))
        while await sequencer.round():
            continue
    finally:
        await store.close()


async def check(folder: Path) -> Figures:
    """Check it, as `stepgrant ledger verify` does."""
    wrap = LocalWrap.open(folder / "keys")
    store = SqliteStore(folder / DATABASE, clock=CLOCK, seal=Seal(wrap))
    try:
        sequencer = Sequencer(store, LocalSigner.open(folder / "keys"), CLOCK, ORIGIN)
        log = TheLog(store, PublicLog(store, sequencer))
        work = LedgerCheck(store, store, wrap, digest_of, log=log)
        started, used = time.perf_counter(), time.process_time()
        found = [finding async for finding in work.findings()]
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
    finally:
        await store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figures(work.progress.entries, seconds, cpu, peak, len(found))


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else GATE_ENTRIES))
