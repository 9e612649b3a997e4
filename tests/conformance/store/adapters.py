"""The adapters that the suite runs over. A new one joins by a class here and a line in `ADAPTERS`; no test changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from stepgrant_broker.domain.ports import Clock, Failpoints, SecretSource, Store
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.store import connecting, schema
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.store.tables import METADATA

Snapshot = Mapping[str, tuple[tuple[Any, ...], ...]]
"""All rows of all tables, by table."""


class AnyStore(Store, Reads, SecretSource, Protocol):
    """What an adapter implements; `commits` counts its durable transactions."""

    @property
    def commits(self) -> int: ...


class Database(Protocol):
    """An empty, migrated database of its own. `location` lets another process find it again."""

    adapter: str
    location: str

    def open(self, clock: Clock, failpoints: Failpoints | None = None, *, capacity: int = 1024) -> AnyStore:
        """A store on it; several may be open at once."""
        ...

    def snapshot(self) -> Snapshot:
        """What stands in it, read past the store."""
        ...


class SqliteDatabase:
    adapter = "sqlite"

    def __init__(self, location: str) -> None:
        self.location = location

    @classmethod
    def make(cls, folder: Path) -> SqliteDatabase:
        path = folder / "store.db"
        schema.migrate(connecting.url_of(path))
        return cls(str(path))

    def open(self, clock: Clock, failpoints: Failpoints | None = None, *, capacity: int = 1024) -> AnyStore:
        return SqliteStore(Path(self.location), clock=clock, failpoints=failpoints, capacity=capacity)

    def snapshot(self) -> Snapshot:
        db = sqlite3.connect(self.location)
        try:
            tables = sorted(METADATA.tables)
            return {name: tuple(sorted(db.execute(f'SELECT * FROM "{name}"'), key=repr)) for name in tables}  # noqa: S608
        finally:
            db.close()


ADAPTERS: Final = {"sqlite": SqliteDatabase}
