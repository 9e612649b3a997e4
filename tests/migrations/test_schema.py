"""Databases are built by migrations: they give what the classes say, and whatever is not ours is refused by name."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Integer, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from conformance.store.making import SetClock
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import connecting, schema
from stepgrant_broker.store.faults import SchemaForeign, SchemaMissing, SchemaNewer
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.store.tables import METADATA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def url(path: Path) -> URL:
    return connecting.url_of(path)


def statements(db: sqlite3.Connection) -> dict[str, str]:
    """What made each table and index, without spaces and quotes."""
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sql.replace('"', "").replace(" ", "").replace("\n", "").replace("\t", "") for name, sql in rows}


def test_alembic_finds_no_difference(url: URL) -> None:
    schema.migrate(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": schema.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_migrations_and_classes_give_the_same_statements(url: URL, path: Path, tmp_path: Path) -> None:
    """Also what Alembic does not compare: the conditions of indexes, WITHOUT ROWID, the names of constraints."""
    schema.migrate(url)
    made = tmp_path / "made.db"
    engine = create_engine(connecting.url_of(made), poolclass=NullPool)
    METADATA.create_all(engine)
    engine.dispose()
    by_migrations, by_classes = sqlite3.connect(path), sqlite3.connect(made)
    found = statements(by_migrations)
    found.pop(schema.VERSION_TABLE)
    assert found == statements(by_classes)
    by_migrations.close()
    by_classes.close()


def test_every_constraint_has_a_name() -> None:
    for table in METADATA.tables.values():
        for constraint in table.constraints:
            assert constraint.name, (table.name, constraint)


def test_every_table_has_the_tenant_in_its_key() -> None:
    """But the log's, in which nothing of a tenant stands, and the installation's own keys."""
    for name, table in METADATA.tables.items():
        keys = [column.name for column in table.primary_key.columns]
        own = {
            "tenants": "id", "proofs": "id", "log": "id", "log_tiles": "level", "log_heads": "size",
            "signing_keys": "purpose",
        }  # fmt: skip
        assert keys[0] == own.get(name, "tenant")


def test_types_are_portable() -> None:
    """PostgreSQL takes each statement, and no column is an INTEGER: milliseconds do not fit in 32 bits there."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in METADATA.tables.values():
        CreateTable(table).compile(dialect=dialect)
        for index in table.indexes:
            CreateIndex(index).compile(dialect=dialect)
        assert not [column.name for column in table.columns if type(column.type) is Integer]
        assert table.autoincrement_column is None


def test_there_is_one_line_of_revisions_and_no_way_down() -> None:
    script = ScriptDirectory.from_config(schema._config())
    revisions = list(script.walk_revisions())
    assert script.get_heads() == [schema.revisions()[-1]]
    assert sorted(one.revision for one in revisions) == list(schema.revisions())
    assert sorted(one.revision for one in revisions) == [f"{number:04}" for number in range(1, len(revisions) + 1)]
    assert not any(hasattr(one.module, "downgrade") for one in revisions)


def test_migrating_again_changes_nothing(url: URL, path: Path) -> None:
    schema.migrate(url)
    before = path.read_bytes()
    schema.migrate(url)
    schema.check(url)
    assert path.read_bytes() == before


def test_a_new_database_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "made here" / "100%" / "store.db"
    schema.migrate(connecting.url_of(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    schema.migrate(connecting.url_of(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_at_once(url: URL) -> None:
    """Two processes that start together: one builds, the other finds it built."""
    failed: list[BaseException] = []

    def migrate() -> None:
        try:
            schema.migrate(url)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    schema.check(url)


def test_who_comes_while_another_one_has_begun_to_write_waits_for_him(url: URL, path: Path) -> None:
    """Before there is a write-ahead log SQLite refuses to begin one at once, whatever the patience."""
    path.touch()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done: list[BaseException | None] = []

    def migrate() -> None:
        try:
            schema.migrate(url)
            done.append(None)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            done.append(error)

    thread = threading.Thread(target=migrate)
    thread.start()
    thread.join(0.5)
    assert done == []
    other.execute("ROLLBACK")
    thread.join()
    other.close()
    assert done == [None]
    schema.check(url)


def refused(url: URL, path: Path, error: type[Exception], words: str) -> None:
    """Neither the check nor a store takes it, and it is not touched."""
    before = path.read_bytes() if path.exists() else None
    for attempt in (lambda: schema.check(url), lambda: SqliteStore(path, clock=SetClock())):
        with pytest.raises(error, match=words) as caught:
            attempt()
        assert isinstance(caught.value, StoreUnavailable)
    assert (path.read_bytes() if path.exists() else None) == before


def test_no_database(url: URL, path: Path) -> None:
    refused(url, path, SchemaMissing, "no database at store.db")


def test_an_empty_file(url: URL, path: Path) -> None:
    path.touch()
    refused(url, path, SchemaMissing, "empty")
    schema.migrate(url)
    schema.check(url)


@pytest.mark.parametrize(
    ("revision", "error", "words"),
    [
        ([["9999"]], SchemaNewer, "a newer version wrote"),
        ([["abcdef"]], SchemaForeign, "no version of Stepgrant"),
        ([["0000"]], SchemaForeign, "no version of Stepgrant"),
        ([["0001"], ["0002"]], SchemaForeign, "no version of Stepgrant"),
        ([], SchemaForeign, "no version of Stepgrant"),
    ],
)
def test_another_schema(url: URL, path: Path, revision: list[list[str]], error: type[Exception], words: str) -> None:
    schema.migrate(url)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM stepgrant_schema")
    db.executemany("INSERT INTO stepgrant_schema VALUES (?)", revision)
    db.commit()
    db.close()
    refused(url, path, error, words)
    with pytest.raises(error):
        schema.migrate(url)


def test_another_programs_database(url: URL, path: Path) -> None:
    """It uses Alembic too, with a revision of our number."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE alembic_version (version_num TEXT)")
    db.execute("INSERT INTO alembic_version VALUES ('0001')")
    db.execute("CREATE TABLE runs (id)")
    db.commit()
    db.close()
    refused(url, path, SchemaForeign, "another program")
    before = path.read_bytes(), path.stat().st_mode
    with pytest.raises(SchemaForeign):
        schema.migrate(url)
    assert (path.read_bytes(), path.stat().st_mode) == before


def test_a_table_is_missing(url: URL, path: Path) -> None:
    schema.migrate(url)
    db = sqlite3.connect(path)
    db.execute("DROP TABLE secrets")
    db.close()
    refused(url, path, SchemaForeign, "lacks tables: secrets")


def test_no_database_at_all(url: URL, path: Path) -> None:
    path.write_bytes(b"this is a letter to my grandmother, not a database" * 100)
    refused(url, path, SchemaForeign, "not a database")
    with pytest.raises(SchemaForeign):
        schema.migrate(url)


def test_a_database_in_memory() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(StoreUnavailable, match="needs a file"):
            schema.migrate(url)


def test_an_upgrade_is_whole_or_not_at_all(url: URL, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the tables are made when the revision fails: none of them is there."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    script = ScriptDirectory.from_config(schema._config())
    assert script.get_revision("0001") is not None
    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError):
        schema.migrate(url)
    monkeypatch.undo()
    db = sqlite3.connect(path)
    assert statements(db) == {}
    db.close()
    schema.migrate(url)


def test_looking_needs_no_lock(url: URL, path: Path) -> None:
    """A broker starts while another one writes."""
    schema.migrate(url)
    other = sqlite3.connect(path, isolation_level=None)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.execute("BEGIN IMMEDIATE")
    schema.check(url)
    other.close()
