"""Which database the settings name: a SQLite file of this process, or a PostgreSQL that several brokers share.

Rules:
* What is built is brought to this version; only `create` builds one where there is none.
* psycopg comes with the extra `postgres`; without it a PostgreSQL is refused by name.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.store import schema
from stepgrant_broker.store.connecting import url_of
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.clock import SystemClock

if TYPE_CHECKING:
    from typing import TypeAlias

    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.ports import Clock, Failpoints
    from stepgrant_broker.store.postgres import PostgresStore
    from stepgrant_broker.store.sealing import Seal

    AnyStore: TypeAlias = SqliteStore | PostgresStore

NEEDS_EXTRA: Final = f"{PREFIX}DATABASE_URL: PostgreSQL needs `pip install 'stepgrant[postgres]'`"


def check_database(settings: Settings) -> None:
    """Raises `SchemaMissing`, `SchemaNewer` or `SchemaForeign` unless the database has this version's schema."""
    schema.check(_url(settings))


def migrate_database(settings: Settings) -> None:
    """Build it, or bring it to this version. Raises `SchemaNewer`, `SchemaForeign`, `StoreUnavailable`."""
    schema.migrate(_url(settings))


def is_built(settings: Settings) -> bool:
    """Whether there is a database of ours, of whatever version. Raises as `check_database`, `StoreUnavailable`."""
    if settings.postgres_url is None:
        return settings.database_file.exists()
    return schema.is_built(_url(settings))


def open_store(settings: Settings, *, clock: Clock | None, failpoints: Failpoints | None, seal: Seal) -> AnyStore:
    """The store, which seals payloads by `seal`. `clock` is a test's.

    Without one PostgreSQL's own clock counts, and for SQLite this process's.
    """
    if settings.postgres_url is None:
        return SqliteStore(settings.database_file, clock=clock or SystemClock(), failpoints=failpoints, seal=seal)
    from stepgrant_broker.store.postgres import PostgresStore  # noqa: PLC0415 - an extra

    return PostgresStore(_url(settings), clock=clock, failpoints=failpoints, seal=seal)


def _url(settings: Settings) -> str:
    given = settings.postgres_url
    if given is None:
        return url_of(settings.database_file).render_as_string(hide_password=False)
    if importlib.util.find_spec("psycopg") is None:
        raise SettingsError([NEEDS_EXTRA])
    return given.get_secret_value()
