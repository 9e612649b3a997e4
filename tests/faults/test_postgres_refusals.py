"""What a PostgreSQL must be before anything is entrusted to it: reachable, ours, of this version, and durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conformance.store.adapters import PostgresDatabase
from faults.unsaid import shows_no_secret
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import schema
from stepgrant_broker.store.faults import SchemaForeign, SchemaMissing, SchemaNewer
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.postgres_writer import Chore
from stepgrant_broker.store.statements import Text

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer


@pytest.fixture
def database(postgres_server: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase.on(postgres_server)


def test_what_cannot_be_opened_says_why(postgres_server: PostgresServer, database: PostgresDatabase) -> None:
    name = database.location.rpartition("/")[2]
    wrong = postgres_server.url(name, user="postgres", password="hunter2")
    cases = [
        (wrong, StoreUnavailable, "check user and password in database_url"),
        (postgres_server.url("nowhere"), StoreUnavailable, "no such database on the server; create it"),
        (postgres_server.create_database(), SchemaMissing, "empty; run `stepgrant db migrate`"),
        (database.location.replace(f":{postgres_server.port}/", ":1/"), StoreUnavailable, "cannot be reached"),
    ]
    for url, error, words in cases:
        for call in (lambda url=url: PostgresStore(url), lambda url=url: schema.check(url)):
            with pytest.raises(error, match=words) as caught:
                call()
            shows_no_secret(caught.value, postgres_server)
            assert "hunter2" not in f"{caught.value!r}"


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("UPDATE stepgrant_schema SET version_num = '9999'", SchemaNewer, "a newer version wrote"),
        ("UPDATE stepgrant_schema SET version_num = 'abc'", SchemaForeign, "no version of Stepgrant"),
        ("DROP TABLE stepgrant_schema", SchemaForeign, "another program"),
        ("DROP TABLE secrets", SchemaForeign, "lacks tables: secrets"),
    ],
)
def test_a_foreign_or_newer_database(database: PostgresDatabase, sql: str, error: type[Exception], words: str) -> None:
    with psycopg.connect(database.location) as db:
        db.execute(sql)
    with pytest.raises(error, match=words):
        PostgresStore(database.location)
    if error is SchemaNewer:
        with pytest.raises(SchemaNewer):
            schema.migrate(database.location)


async def test_a_session_is_set_up_for_promises(database: PostgresDatabase) -> None:
    """A database that acknowledges before its disk does is overruled; nothing waits for ever."""
    name = database.location.rpartition("/")[2]
    with psycopg.connect(database.location, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    store = PostgresStore(database.location, readers=1)
    names = ("synchronous_commit", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    def settings(run: Any) -> list[str]:  # noqa: ANN401 - a `forgetting.Run`
        return [run(Text(f"SELECT current_setting('{name}')", ()), ())[1][0][0] for name in names]

    assert await store._writer.inbox.put(Chore(settings)) == ["on", "15s", "5s", "5s"]
    assert "postgres" not in repr(store._writer._link)
    await store.close()
