"""What the application's database says, asked by its superuser: nobody in the story can write or hide it there.

`book.logins` was written inside the transactions that made and dropped each login, so its `others` are the logins whose
end was not yet committed when a new one was made. `book.writes` comes from triggers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from psycopg.rows import class_row

SQL: Final = Path(__file__).with_name("application.sql")
LOGINS: Final = "v-%"
"""How Vault names the logins that it makes."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of the book about a login. `others` when it was made, `sessions` (ended with it) when it was dropped."""

    seq: int
    at: float
    what: str
    login: str
    role: str | None
    others: list[str] | None
    sessions: int | None


@dataclass(frozen=True, slots=True)
class Write:
    """One line of the book about a write."""

    login: str
    what: str
    account: str


class Witness:
    """The superuser's connection. Use it as a context manager, from one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def build(self, maker_password: str) -> None:
        """Make the application and its book in this empty database."""
        text = SQL.read_text(encoding="utf-8").replace(":'maker_password'", f"'{maker_password}'")
        self._connection.execute(text.encode())

    def roles(self) -> list[str]:
        """Vault's logins that exist now."""
        return self._column("select rolname from pg_roles where rolname like %s order by 1", LOGINS)

    def sessions(self, login: str | None = None) -> list[str]:
        """The open sessions of a login (of any of Vault's): `Lock` if it waits for one, else its state.

        Those of roles that are gone count, too: a dropped role does not end a session, it only makes it nameless.
        """
        return self._column(
            "select case wait_event_type when 'Lock' then 'Lock' else coalesce(state, 'unknown') end"
            " from pg_stat_activity where usename like %s or usename is null and usesysid is not null",
            login or LOGINS,
        )

    def logins(self) -> list[Noted]:
        """The book of logins, oldest first."""
        with self._connection.cursor(row_factory=class_row(Noted)) as cursor:
            return cursor.execute(
                "select seq, extract(epoch from at)::float8 as at, what, login, role, others, sessions"
                " from book.logins order by seq"
            ).fetchall()

    def writes(self) -> list[Write]:
        """The book of writes, oldest first."""
        with self._connection.cursor(row_factory=class_row(Write)) as cursor:
            return cursor.execute("select login, what, account from book.writes order by seq").fetchall()

    def rows(self, table: str, account: str) -> int:
        """How many rows of a table of the application are about an account."""
        query = sql.SQL("select count(*) from {} where account = %s").format(sql.Identifier(table))
        return sum(row[0] for row in self._connection.execute(query, (account,)))

    def schemas(self, account: str) -> int:
        """How many schemas bear the account's name."""
        return len(self._column("select nspname from pg_namespace where nspname = %s", account))

    def account(self, account: str) -> list[tuple[str, str]]:
        """Plan and state of the rows of this account."""
        return self._connection.execute("select plan, state from accounts where account = %s", (account,)).fetchall()

    def may(self, role: str) -> list[str]:
        """What a role may do with the application's tables, each as `insert accounts`."""
        return self._column(
            "select lower(privilege) || ' ' || relation from unnest(array['SELECT','INSERT','UPDATE']) privilege,"
            " unnest(array['accounts','plans','quotas','settings']) relation"
            " where has_any_column_privilege(%s, relation, privilege) union all"
            " select 'delete ' || relation from unnest(array['accounts','plans','quotas','settings']) relation"
            " where has_table_privilege(%s, relation, 'DELETE') order by 1",
            role,
            role,
        )

    def lock(self, table: str) -> Lock:
        """Nobody can write to this table until `release`; reading goes on."""
        return Lock(self._url, table)

    def sessions_of(self, user: str) -> int:
        """How many sessions this user has open now."""
        return len(self._column("select pid from pg_stat_activity where usename = %s", user))

    def version(self) -> str:
        """PostgreSQL's version."""
        return str(self._column("show server_version")[0]).split()[0]

    def _column(self, query: str, *values: str) -> list[str]:
        return [str(row[0]) for row in self._connection.execute(query, values)]


def make_owned_database(url: str, name: str, password: str) -> None:
    """A database with an owner of the same name, which may do nothing else."""
    owner = sql.Identifier(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login password {}").format(owner, sql.Literal(password)))
        connection.execute(sql.SQL("create database {} owner {}").format(owner, owner))


class Lock:
    """A transaction of the superuser that locks a table."""

    def __init__(self, url: str, table: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(url)
        statement = sql.SQL("lock table {} in share mode").format(sql.Identifier(table))
        self._connection.execute(statement)

    def release(self) -> None:
        """End it."""
        self._connection.close()


def rows_of_database(url: str) -> Iterator[tuple[str, bytes]]:
    """Every value of every table of a database, as `(table, bytes)`; for looking for secrets."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("select * from {}").format(sql.Identifier(schema, table))
            for row in connection.execute(query):
                yield table, b"\n".join(_bytes(value) for value in row)


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
