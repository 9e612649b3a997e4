"""The adapters that the suite runs over. A new one joins by a class here and a line in `ADAPTERS`; no test changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg
from psycopg import sql

from conformance.store.making import unique
from stepgrant_broker.domain.keys import KeyStore
from stepgrant_broker.domain.log import LogStore
from stepgrant_broker.domain.ports import Clock, Failpoints, SecretSource, Store
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.rewrapping import RewrapStore
from stepgrant_broker.store import schema
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.sealing import Clear
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.store.tables import METADATA
from stepgrant_broker.wiring.fresh import new_database

if TYPE_CHECKING:
    import pytest

    from stepgrant_services import PostgresServer

Snapshot = Mapping[str, tuple[tuple[Any, ...], ...]]
"""All rows of all tables, by table."""


class AnyStore(Store, Reads, SecretSource, LogStore, KeyStore, RewrapStore, Protocol):
    """What an adapter implements; `commits` counts its durable transactions, `log_commits` those of the log apart."""

    @property
    def commits(self) -> int: ...

    @property
    def log_commits(self) -> int: ...


class Database(Protocol):
    """An empty, migrated database of its own. `location` lets another process find it again."""

    adapter: str
    location: str

    def open(
        self, clock: Clock, failpoints: Failpoints | None = None, *, seal: Clear | None = None, capacity: int = 1024
    ) -> AnyStore:
        """A store on it; several may be open at once."""
        ...

    def snapshot(self) -> Snapshot:
        """What stands in it, read past the store."""
        ...


class SqliteDatabase:
    """A copy of a migrated one, as below."""

    adapter = "sqlite"

    def __init__(self, location: str) -> None:
        self.location = location

    @classmethod
    def make(cls, folder: Path, _: pytest.FixtureRequest) -> SqliteDatabase:
        path = folder / "store.db"
        new_database(path)
        return cls(str(path))

    def open(
        self, clock: Clock, failpoints: Failpoints | None = None, *, seal: Clear | None = None, capacity: int = 1024
    ) -> AnyStore:
        return SqliteStore(Path(self.location), clock=clock, failpoints=failpoints, seal=seal, capacity=capacity)

    def snapshot(self) -> Snapshot:
        db = sqlite3.connect(self.location)
        try:
            tables = sorted(METADATA.tables)
            return {name: tuple(sorted(db.execute(f'SELECT * FROM "{name}"'), key=repr)) for name in tables}  # noqa: S608
        finally:
            db.close()


class PostgresDatabase:
    """A copy of a migrated database, which takes a server tens of milliseconds; `location` holds its password."""

    adapter = "postgres"
    _models: Final[dict[str, str]] = {}
    _over: Final[dict[str, list[str]]] = {}
    """The copies that nobody needs any more, by server; they go when the next one is made."""

    def __init__(self, location: str) -> None:
        self.location = location

    @classmethod
    def make(cls, folder: Path, request: pytest.FixtureRequest) -> PostgresDatabase:  # noqa: ARG003 - it lies elsewhere
        return cls.on(request.getfixturevalue("postgres_server"))

    @classmethod
    def on(cls, server: PostgresServer) -> PostgresDatabase:
        """One on this server."""
        model = cls._models.get(server.url())
        if model is None:
            url = server.create_database()
            schema.migrate(url)
            model = cls._models[server.url()] = url.rpartition("/")[2]
        name = unique("db")
        strategy = " strategy file_copy" if server.options.get("fsync") == "off" else ""
        with psycopg.connect(server.url(), autocommit=True) as db:
            db.execute(f'create database "{name}" template "{model}"{strategy}'.encode())
            for gone in cls._over.pop(server.url(), ()):
                db.execute(f'drop database "{gone}" with (force)'.encode())
        return cls(server.url(name))

    def over(self, server: PostgresServer) -> None:
        """Its test has ended."""
        self._over.setdefault(server.url(), []).append(self.location.rpartition("/")[2])

    def open(
        self, clock: Clock, failpoints: Failpoints | None = None, *, seal: Clear | None = None, capacity: int = 1024
    ) -> AnyStore:
        return PostgresStore(self.location, clock=clock, failpoints=failpoints, seal=seal, capacity=capacity, readers=2)

    def snapshot(self) -> Snapshot:
        with psycopg.connect(self.location) as db:
            found = {}
            for name in sorted(METADATA.tables):
                columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in METADATA.tables[name].columns)
                query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(name))
                found[name] = tuple(sorted(db.execute(query), key=repr))
            return found


ADAPTERS: Final[dict[str, type[SqliteDatabase | PostgresDatabase]]] = {
    "postgres": PostgresDatabase,
    "sqlite": SqliteDatabase,
}
NEEDS: Final = {"postgres": ("postgres",)}
"""The services that an adapter needs."""
