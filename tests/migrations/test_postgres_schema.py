"""The same revisions on PostgreSQL, and brokers of two versions on one database while it is upgraded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    and_,
    insert,
    not_,
    select,
    text,
)

from stepgrant_broker.store import connecting, schema
from stepgrant_broker.store.tables import METADATA

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

SHAPE: Final = """
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'column', table_name, column_name, concat_ws(' ', data_type, is_nullable, column_default)
      FROM information_schema.columns WHERE table_schema = 'public'
"""
NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Makes empty databases of one kind; their URLs."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.create_database

    def make() -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        path.touch()
        return connecting.url_of(path).render_as_string(hide_password=False)

    return make


def revisions() -> list[str]:
    """All, oldest first."""
    return [one.revision for one in ScriptDirectory.from_config(schema._config()).walk_revisions()][::-1]


def upgrade_to(url: str, revision: str) -> None:
    """What `schema.migrate` of that version did."""
    with schema._connected(schema._url(url), writing=True) as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def shape(url: str) -> set[tuple[Any, ...]]:
    with schema._connected(schema._url(url)) as connection:
        rows = {tuple(row) for row in connection.execute(text(SHAPE))}
    return {row for row in rows if row[1] != schema.VERSION_TABLE}


def test_migrations_and_classes_give_the_same_tables(postgres_server: PostgresServer) -> None:
    """Columns, types, defaults, constraints with their names, and indexes with their conditions."""
    migrated, made = postgres_server.create_database(), postgres_server.create_database()
    schema.migrate(migrated)
    with schema._connected(schema._url(made), writing=True) as connection:
        METADATA.create_all(connection)
    assert shape(migrated) == shape(made)
    with schema._connected(schema._url(migrated)) as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": schema.VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []


def test_an_upgrade_step_by_step_gives_what_one_at_once_gives(postgres_server: PostgresServer) -> None:
    at_once, stepwise = postgres_server.create_database(), postgres_server.create_database()
    schema.migrate(at_once)
    for revision in revisions():
        upgrade_to(stepwise, revision)
    schema.check(stepwise)
    assert shape(at_once) == shape(stepwise)


def test_an_upgrade_is_whole_or_not_at_all(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres_server.create_database()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError):
        schema.migrate(url)
    monkeypatch.undo()
    assert shape(url) == set()
    schema.migrate(url)
    schema.check(url)


def test_three_replicas_that_start_together(postgres_server: PostgresServer) -> None:
    """One builds, the others find it built."""
    url, failed = postgres_server.create_database(), []

    def migrate() -> None:
        try:
            schema.migrate(url)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    schema.check(url)


def asked(url: str, statement: str, *, lock_ms: int = 0) -> None:
    with psycopg.connect(url) as broker:
        broker.execute(f"SET lock_timeout = {lock_ms}")
        broker.execute(statement)


def test_an_upgrade_does_not_keep_brokers_waiting_behind_a_dump(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump holds each table; the upgrade steps back, brokers go on in the pauses, and it is done once the dump is."""
    url = postgres_server.create_database()
    upgrade_to(url, "0006")
    before = shape(url)
    monkeypatch.setattr(schema, "LOCK_MS", 50)
    monkeypatch.setattr(schema, "TRIES", 3)
    pauses: list[float] = []
    ends: list[bool] = []

    with psycopg.connect(url) as dump:
        dump.execute("SET idle_in_transaction_session_timeout = '20s'")  # so an upgrade that waits for it ends, too
        dump.execute("LOCK TABLE runs IN ACCESS SHARE MODE")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            asked(url, "SELECT count(*) FROM runs", lock_ms=30_000)
            assert shape(url) == before
            if ends:
                dump.rollback()

        monkeypatch.setattr(time, "sleep", pause)
        with pytest.raises(schema.TablesHeld, match="nothing was changed"):
            schema.migrate(url)
        assert pauses == [schema.PAUSE_S] * (schema.TRIES - 1)
        assert shape(url) == before

        ends.append(True)
        schema.migrate(url)
    assert len(pauses) == schema.TRIES
    schema.check(url)


def test_an_upgrade_in_a_circle_with_a_broker_comes_again(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for a table of the other, and PostgreSQL ends the upgrade (a deadlock): that is no broken database."""
    url = postgres_server.create_database()
    upgrade_to(url, "0009")
    before, pauses, make = shape(url), list[float](), op.create_index

    def end(*words: Any, **more: Any) -> None:  # noqa: ANN401 - of Alembic
        if not pauses:
            op.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END $$")
        make(*words, **more)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert shape(url) == before

    monkeypatch.setattr("alembic.op.create_index", end)
    monkeypatch.setattr(time, "sleep", pause)
    schema.migrate(url)
    assert pauses == [schema.PAUSE_S]
    schema.check(url)


def test_what_is_held_at_an_upgrade_is_known_as_held(new_database: NewDatabase) -> None:
    """By the epochs that are not over a lapsed run is found; those of runs that nobody holds do not come to them."""
    url = new_database()
    upgrade_to(url, "0009")
    with schema._connected(schema._url(url), writing=True) as connection:
        known = {table.name: table for table in of_version(connection)}
        for run, state, epoch in (("held", "open", 2), ("parked", "parked", 1), ("over", "completed", 1)):
            row = {**a_row(known["runs"], 1), "id": run, "key": run, "state": state, "epoch": epoch}
            connection.execute(insert(known["runs"]), [row])
        for run, epoch in (("held", 1), ("held", 2), ("parked", 1), ("over", 1)):
            one = {**a_row(known["run_epochs"], 1), "run": run, "epoch": epoch}
            connection.execute(insert(known["run_epochs"]), [one])
    schema.migrate(url)
    with schema._connected(schema._url(url)) as connection:
        found = connection.execute(text("SELECT run, epoch FROM run_epochs WHERE over = 0")).all()
    assert [tuple(row) for row in found] == [("held", 2)]


def a_row(table: Table, number: int) -> dict[str, Any]:
    """A row with a value for each column."""
    row: dict[str, Any] = {}
    for column in table.columns:
        kind = column.type
        if isinstance(kind, LargeBinary):
            row[column.name] = b"bytes"
        elif isinstance(kind, BigInteger | SmallInteger):
            row[column.name] = number
        elif isinstance(kind, Boolean):
            row[column.name] = False
        else:
            row[column.name] = f"text{number}"
    return row


def changed(table: Table) -> dict[str, Any]:
    """Other values for whatever no key holds; where keys hold all of a row, those that it has."""
    free = [column.name for column in table.columns if not (column.primary_key or column.foreign_keys)]
    row = a_row(table, 3 if free else 2)
    return {name: row[name] for name in free or row}


def of_version(connection: Connection) -> list[Table]:
    """The tables as a broker of the database's version knows them, runs before what refers to them."""
    known = MetaData()
    known.reflect(connection)
    return [table for table in known.sorted_tables if table.name != schema.VERSION_TABLE]


@pytest.mark.parametrize("before", revisions()[:-1])
def test_the_statements_of_an_older_version_go_on_working(new_database: NewDatabase, before: str) -> None:
    """A rolling upgrade: rows of before are there after it, and an old broker writes, changes and reads on."""
    url = new_database()
    upgrade_to(url, before)
    with schema._connected(schema._url(url), writing=True) as connection:
        tables = of_version(connection)
        for table in tables:
            connection.execute(insert(table), [a_row(table, 1)])
        kept = {table.name: connection.execute(select(table)).all() for table in tables}
    schema.migrate(url)
    schema.check(url)
    with schema._connected(schema._url(url), writing=True) as connection:
        for table in tables:
            assert connection.execute(select(table)).all() == kept[table.name]
            connection.execute(insert(table), [a_row(table, 2)])
            second = [key == a_row(table, 2)[key.name] for key in table.primary_key.columns]
            moved = connection.execute(table.update().values(changed(table)).where(*second))
            assert moved.rowcount == 1
            found = connection.execute(select(table).where(*second)).one()
            assert dict(found._mapping) == {**a_row(table, 2), **changed(table)}
            assert connection.execute(select(table).where(not_(and_(*second)))).all() == kept[table.name]
