"""A stolen database and key folder in the thief's hands: he writes any row and any file, past the broker.

One class for both databases. What he cannot do by a statement that both understand is done in Python.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fakes.clock import StandingClock
from security.tamper.victim import DATABASE, ORIGIN, Victim, signed, signing_key, tree_of
from stepgrant import canonical
from stepgrant_broker.ledger.check_heads import KeptHead
from stepgrant_broker.ledger.findings import Finding
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck, TheLog
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.store.tables import METADATA

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

TENANT = "acme"
NOW = 1_800_001_000_000
CHANGED = re.compile(r"(?:UPDATE|INSERT INTO|DELETE FROM) (\w+)")
_dirty: dict[str, set[str]] = {}
INDEXES = [index for table in METADATA.sorted_tables for index in table.indexes if index.name == "ix_entries_leaf"]
"""Those that a manipulation drops."""


@dataclass
class Stolen:
    """What the thief has. `url`: of the database, as SQLAlchemy takes it."""

    victim: Victim
    folder: Path
    url: str

    def do(self, sql: str, **binds: object) -> int:
        """Run a statement; how many rows it touched."""
        with _engine(self.url).begin() as db:
            _dirty.setdefault(self.url, set()).update(CHANGED.findall(sql))
            if db.dialect.name == "postgresql":
                db.execute(sa.text("SET LOCAL session_replication_role = replica"))  # no foreign keys for a thief
            return int(db.execute(sa.text(sql), binds).rowcount)

    def look(self, sql: str, **binds: object) -> list[Any]:
        """Rows."""
        with _engine(self.url).connect() as db:
            return [tuple(_plain(value) for value in row) for row in db.execute(sa.text(sql), binds)]

    def one(self, sql: str, **binds: object) -> Any:  # noqa: ANN401 - any column
        """The first column of the first row."""
        return self.look(sql, **binds)[0][0]

    def entry(self, run: str | None, seq: int) -> bytes:
        """The bytes of an entry."""
        data = self.one("SELECT data FROM entries WHERE chain = :chain AND seq = :seq", chain=run or "", seq=seq)
        assert isinstance(data, bytes)
        return data

    def put_entry(self, run: str | None, seq: int, data: bytes) -> None:
        """Other bytes for an entry, and the hash beside them."""
        sql = "UPDATE entries SET data = :data, hash = :hash WHERE chain = :chain AND seq = :seq"
        assert self.do(sql, data=data, hash=hashlib.sha256(data).digest(), chain=run or "", seq=seq) == 1

    def seq_of(self, kind: str, run: str | None = None) -> int:
        """The first entry of a type, in the run whose life has all types."""
        sql = "SELECT min(seq) FROM entries WHERE chain = :chain AND type = :kind"
        return int(self.one(sql, chain=self.victim.run if run is None else run, kind=kind))

    def leaf_of(self, run: str | None, seq: int) -> int:
        """The leaf index of an entry."""
        sql = "SELECT leaf_index FROM entries WHERE chain = :chain AND seq = :seq"
        return int(self.one(sql, chain=run or "", seq=seq))

    def rechain(self, run: str, first: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change an entry and make the chain whole again behind it, hashes, links and the run's head."""
        last = self.one("SELECT max(seq) FROM entries WHERE chain = :chain", chain=run)
        prev = None
        for seq in range(first, last + 1):
            entry = canonical.loads(self.entry(run, seq))
            assert isinstance(entry, dict)
            if prev is None:
                change(entry)
            else:
                entry["prev"] = prev
            data = canonical.dumps(entry)
            prev = canonical.b64u(hashlib.sha256(data).digest())
            self.put_entry(run, seq, data)
        self.do("UPDATE runs SET head = :head WHERE id = :run", head=prev, run=run)

    def retree(self) -> None:
        """Make the tree whole again: tiles and head over the entries as they are now."""
        hashes = [row[0] for row in self.look("SELECT hash FROM entries WHERE leaf_index >= 0 ORDER BY leaf_index")]
        root, tiles = tree_of(hashes)
        for (level, number), data in tiles.items():
            sql = "UPDATE log_tiles SET data = :data WHERE level = :level AND number = :number"
            assert self.do(sql, data=data, level=level, number=number) == 1
        assert self.do("UPDATE log SET root = :root, size = :size", root=root, size=len(hashes)) == 1

    def resign(self, origin: str = ORIGIN) -> None:
        """Sign all heads anew over the entries as they are now, with the stolen key."""
        hashes = [row[0] for row in self.look("SELECT hash FROM entries WHERE leaf_index >= 0 ORDER BY leaf_index")]
        secret = signing_key(self.folder)
        for (size,) in self.look("SELECT size FROM log_heads"):
            root, _ = tree_of(hashes[:size])
            note = signed(secret, size, root, origin)
            self.do(
                "UPDATE log_heads SET root = :root, note = :note WHERE size = :size", root=root, note=note, size=size
            )

    @asynccontextmanager
    async def checking(self, *kept: KeptHead, quorum: bool = True) -> AsyncIterator[LedgerCheck]:
        """The check of whoever got his database back."""
        wrap, clock = LocalWrap.open(self.folder / "keys"), StandingClock(NOW)
        seal = Seal(wrap)
        store: SqliteStore | PostgresStore = (
            SqliteStore(self.folder / DATABASE, clock=clock, seal=seal)
            if self.url.startswith("sqlite")
            else PostgresStore(self.url.replace("+psycopg", ""), clock=clock, seal=seal, readers=1)
        )
        try:
            signer = LocalSigner.open(self.folder / "keys")
            reader = PublicLog(store, Sequencer(store, signer, clock, ORIGIN))
            log = TheLog(store, reader, self.victim.policy if quorum else None, known=kept)
            yield LedgerCheck(store, store, wrap, digest_of, log=log, signer=signer)
        finally:
            await store.close()

    async def findings(self, *kept: KeptHead, quorum: bool = True) -> list[Finding]:
        """What the check finds."""
        async with self.checking(*kept, quorum=quorum) as check:
            return [finding async for finding in check.findings()]


@functools.cache
def _engine(url: str) -> sa.Engine:
    """To a file each statement has a connection of its own; PostgreSQL takes long to connect, so there it stays."""
    return sa.create_engine(url, poolclass=NullPool if url.startswith("sqlite") else None)


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


class Given:
    """A database with the rows of a state, given to one thief after the other: what one changed is put right again.

    A copy of the database for each would cost a PostgreSQL three hundred files a time.
    """

    def __init__(self, server: PostgresServer, file: Path) -> None:
        from conformance.store.adapters import PostgresDatabase  # noqa: PLC0415 - it needs psycopg

        self.url = PostgresDatabase.on(server).location.replace("postgresql://", "postgresql+psycopg://", 1)
        self._rows = {}
        with _engine(f"sqlite:///{file}").connect() as db:
            for table in METADATA.sorted_tables:
                self._rows[table] = _rows_of(db, table)
        _dirty[self.url] = set(METADATA.tables)
        self.put_right()

    def put_right(self) -> None:
        """Every row of the tables that were changed as it was, and every index."""
        dirty = _dirty.pop(self.url, set[str]())
        with _engine(self.url).begin() as db:
            db.execute(sa.text("SET LOCAL session_replication_role = replica"))
            for table, rows in self._rows.items():
                if table.name in dirty:
                    db.execute(sa.delete(table))
                    if rows:
                        db.execute(sa.insert(table), rows)
            for index in INDEXES:
                index.create(db, checkfirst=True)

    def close(self) -> None:
        """Let go of the server."""
        _engine(self.url).dispose()


def _rows_of(db: sa.Connection, table: sa.Table) -> list[dict[str, Any]]:
    found = db.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
    return [{name: _plain(value) for name, value in row.items()} for row in found]


def steal(victim: Victim, state: str, folder: Path, url: str | None = None) -> Stolen:
    """A copy of a state. `url`: of a PostgreSQL that has its rows; otherwise the copy's own SQLite file."""
    shutil.copytree(victim.state(state), folder)
    return Stolen(victim, folder, url or f"sqlite:///{folder / DATABASE}")
