"""Building, upgrading and recognising the database: Alembic revisions in `migrations/`, from the first one on.

Rules:
* A database is built by its migrations, never from the classes in `tables/`.
* An upgrade is one transaction: it is there whole or not at all, and two processes cannot both run it.
* On PostgreSQL it waits for no table longer than the brokers that still run can wait behind it: who asks for a whole
  table stands before all who ask after him. If a pg_dump holds it, or a broker waits for it the other way round, all is
  given back, and tried again after a pause.
* A database of a newer version, or of something else, is refused by name and not touched.
* There is no way down: a downgrade would destroy evidence.
* Alembic is loaded by who upgrades. Every other start only compares the revision with the names of the migrations.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import connecting
from stepgrant_broker.store.faults import SchemaForeign, SchemaMissing, SchemaNewer, unavailable
from stepgrant_broker.store.tables import METADATA

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Engine

MIGRATIONS: Final = Path(__file__).parent / "migrations"
UPGRADING: Final = 0x57E9_5C4E
"""The advisory lock of PostgreSQL under which one process upgrades; who comes later finds it done."""
CONNECT_S: Final = 5
LOCK_MS: Final = 2000
PAUSE_S: Final = 2.0
TRIES: Final = 30
HELD: Final = frozenset({"55P03", "40P01"})
"""It waited too long for a table; or stood in a circle with a broker (a deadlock), and PostgreSQL ended the upgrade."""
VERSION_TABLE: Final = "stepgrant_schema"
"""Not Alembic's own name: a database of another program that uses Alembic must not look like one of ours."""


_log = structlog.get_logger(__name__)


class TablesHeld(StoreUnavailable):
    """Others hold a table that the upgrade changes; nothing was changed."""


def migrate(url: URL | str) -> None:
    """Bring the database to this version's schema; a missing one is made (a file 0600, its new folder 0700).

    Raises `SchemaNewer`, `SchemaForeign`, `StoreUnavailable`.
    """
    target = _url(url)
    if target.get_backend_name() == "sqlite":
        connecting.create_file(_file(target))
    with _connected(target) as connection:
        behind = _is_behind(connection)
    if behind:
        _bring_up(target)
    if target.get_backend_name() == "sqlite":
        connecting.take_from_others(_file(target))


def _bring_up(target: URL) -> None:
    for left in reversed(range(TRIES)):
        try:
            with _connected(target, writing=True) as connection:
                # Another process may have been faster while this one waited for the lock.
                if _is_behind(connection):
                    _upgrade(connection)
        except TablesHeld:
            if not left:
                raise
            _log.warning("upgrade_waits", why="others hold tables that it changes: a pg_dump, or a long transaction")
            time.sleep(PAUSE_S)
        else:
            return


def check(url: URL | str) -> None:
    """Raises `SchemaMissing`, `SchemaNewer` or `SchemaForeign` unless the schema is this version's; changes nothing."""
    target = _url(url)
    if target.get_backend_name() == "sqlite" and not _file(target).exists():
        raise SchemaMissing(f"there is no database at {_file(target).name}; run `stepgrant db migrate`")
    with _connected(target) as connection:
        _judge(connection)


def is_built(url: URL | str) -> bool:
    """Whether there are tables of ours, of this version or an older one. Raises `SchemaNewer`, `SchemaForeign`."""
    with _connected(_url(url)) as connection:
        return not _is_behind(connection) or VERSION_TABLE in inspect(connection).get_table_names()


def _url(url: URL | str) -> URL:
    """The URL with the driver that we use."""
    target = make_url(url)
    return target.set(drivername="postgresql+psycopg") if target.get_backend_name() == "postgresql" else target


def _file(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise StoreUnavailable("a ledger needs a file; a database in memory is gone with its process")
    return Path(url.database)


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see the rules above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = VERSION_TABLE
    return config


@cache
def revisions() -> tuple[str, ...]:
    """The revisions that this version knows, oldest first: a migration's file is called `<revision>_<what>.py`."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))


def _judge(connection: Connection) -> None:
    tables = set(inspect(connection).get_table_names())
    if not tables:
        raise SchemaMissing("the database is empty; run `stepgrant db migrate`")
    if VERSION_TABLE not in tables:
        raise SchemaForeign("the database belongs to another program; name another one")
    head, known = revisions()[-1], revisions()
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608 - ours
    revision = found[0] if len(found) == 1 else ""
    if revision == head:
        if missing := sorted(set(METADATA.tables) - tables):
            raise SchemaForeign(f"the database lacks tables: {', '.join(missing)}")
    elif revision in known:
        raise SchemaMissing(
            f"the database has schema {revision}, this version needs {head}; run `stepgrant db migrate`"
        )
    elif revision.isdigit() and revision > head:
        raise SchemaNewer(f"a newer version wrote the database (schema {revision}, this one knows {head}); upgrade")
    else:
        raise SchemaForeign("the database has a schema that no version of Stepgrant wrote")


def _is_behind(connection: Connection) -> bool:
    try:
        _judge(connection)
    except SchemaMissing:
        return True
    return False


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - see the rules above

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite":
        # Batch migrations rebuild tables with foreign keys off, so what they left is looked at before the commit.
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise StoreUnavailable(f"the upgrade would leave rows of {broken[0]} without their parents; not done")


@contextmanager
def _connected(url: URL, *, writing: bool = False) -> Iterator[Connection]:
    """One transaction; the driver's errors leave it as domain errors, without the URL, which may hold a password."""
    timeout = {"connect_timeout": CONNECT_S} if url.get_backend_name() == "postgresql" else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=timeout)
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, writing=writing)
    try:
        with engine.begin() as connection:
            if writing and connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADING})")
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
            yield connection
    except DBAPIError as error:
        raise _refused(error) from None
    finally:
        engine.dispose()


def _refused(error: DBAPIError) -> StoreUnavailable:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        if getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            return SchemaForeign("the file is not a database; name another file")
        return unavailable(cause)
    if getattr(cause, "sqlstate", None) in HELD:
        return TablesHeld(
            "others hold tables that the upgrade changes (a pg_dump, or a long transaction); nothing was changed: "
            "start it again when they are done"
        )
    # Its driver is there only with the extra `postgres`.
    from stepgrant_broker.store.postgres_faults import not_connected  # noqa: PLC0415

    return not_connected(cause)


def _prepare_sqlite(engine: Engine, *, writing: bool) -> None:
    """Let transactions hold schema changes too: sqlite3 by itself begins none before DDL (SQLAlchemy's recipe).

    Who writes also turns WAL on, before any reader is there whom the change would have to wait for.
    """

    def connect(dbapi: Any, _: object) -> None:  # noqa: ANN401 - the driver's connection
        dbapi.isolation_level = None
        dbapi.execute(f"PRAGMA busy_timeout = {connecting.BUSY_MS}")
        if writing:
            connecting.require_wal(dbapi)

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
