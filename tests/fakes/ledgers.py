"""A ledger with one long run in it, and the file behind it for whoever changes it past the broker."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.clock import StandingClock
from fakes.hand import hand
from fakes.tale import whole_life
from stepgrant import canonical
from stepgrant_broker.ledger.findings import Finding
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore

DATABASE = Path("store", "stepgrant.db")


@dataclass
class Ledger:
    """A store over a finished ledger of tenant `acme`, with its keys."""

    store: SqliteStore
    wrap: LocalWrap
    signer: LocalSigner
    clock: StandingClock
    run: str
    file: Path

    def change(self, sql: str, *values: object) -> int:
        """Change the database past the broker; how many rows."""
        db = sqlite3.connect(self.file)
        try:
            done = db.execute(sql, values).rowcount
            db.commit()
            return done
        finally:
            db.close()

    def look(self, sql: str, *values: object) -> list[Any]:
        """Rows of the database."""
        db = sqlite3.connect(self.file)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def rewrite(self, change: Callable[[int, dict[str, Any]], object]) -> None:
        """Rewrite the run's chain as somebody who has all of the broker's power: hashes, links and the run's head."""
        rows = self.look("SELECT seq, data FROM entries WHERE chain = ? ORDER BY seq", self.run)
        prev = canonical.b64u(bytes(32))
        for seq, data in rows:
            read = canonical.loads(data)
            assert isinstance(read, dict)
            entry = {**read, "prev": prev}
            change(seq, entry)
            text = canonical.dumps(entry)
            prev = canonical.b64u(hashlib.sha256(text).digest())
            self.change("UPDATE entries SET data = ? WHERE chain = ? AND seq = ?", text, self.run, seq)
        self.change("UPDATE runs SET head = ?", prev)

    def check(self, **options: Any) -> LedgerCheck:  # noqa: ANN401 - fields of `LedgerCheck`
        """A check of everything."""
        return LedgerCheck(self.store, self.store, **{"wrap": self.wrap, "digest_of": digest_of, **options})

    async def findings(self) -> list[Finding]:
        """What a check finds."""
        return [finding async for finding in self.check().findings()]

    async def keys(self) -> dict[str, Any]:
        """The public keys that verify its heads."""
        return {"keys": [dict(key.jwk) for key in await self.signer.public_keys("heads")]}


async def write(folder: Path) -> str:
    """Let the real use cases write one; the run's id."""
    async with hand(folder) as held:
        return await whole_life(held)


@asynccontextmanager
async def copied(written: Path, run: str, folder: Path) -> AsyncIterator[Ledger]:
    """A copy of a written ledger, open."""
    shutil.copytree(written, folder)
    clock, file = StandingClock(1_800_001_000_000), folder / DATABASE
    wrap = LocalWrap.open(folder / "keys")
    store = SqliteStore(file, clock=clock, seal=Seal(wrap))
    try:
        yield Ledger(store, wrap, LocalSigner.open(folder / "keys"), clock, run, file)
    finally:
        await store.close()
