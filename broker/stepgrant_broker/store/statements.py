"""Every statement that changes something, written once with SQLAlchemy Core and compiled once for a dialect.

Rules:
* What may be refused is refused by the number of rows that a statement touched, never by an exception, so that one
  refused set cannot abort the transaction that it shares with others.
* Binds are named after their columns; those of a condition begin with `w_`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy import Table as CoreTable
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement, FromClause

from stepgrant_broker.domain.state import Approval, Grant, Step
from stepgrant_broker.store import rows, tables

ENTRIES: Final = cast("CoreTable", vars(tables.EntryRow)["__table__"])
ENTRY_COLUMNS: Final = ("tenant", "chain", "seq", "type", "step", "ts", "hash", "data")
PAYLOAD_COLUMNS: Final = ("tenant", "chain", *rows.PAYLOAD.columns, "expires_at")
TENANT_MOVES: Final = tuple(name for name in rows.TENANT.columns if name not in {"id", "guard"})
"""What a `Tenant` row may move. Its guard moves only by `raise_guard`, or a late writer could lower it again."""

RUN_FIXED: Final = ("key", "agent", "opened_at")
FIXED: Final[Mapping[type, tuple[str, ...]]] = {
    Step: ("position",),
    Grant: ("run", "step", "issued_at"),
    Approval: ("run", "step", "requested_at"),
}
"""What no later row may change: a set that tries touches no row. It also spares the indexes that hold these columns."""


class _Compiler(SQLiteCompiler):
    """SQLAlchemy has no words for SQLite's INDEXED BY; this lets hints through as they are."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:
        return text


def sqlite_dialect() -> Dialect:
    """SQLite as the driver speaks it, with hints.

    Without statistics SQLite takes a key's first column to be about as telling as an index over all that is asked, and
    would read a tenant's every grant. INDEXED BY leaves it no choice, and fails if the index does not serve.
    """
    dialect = sqlite.dialect(paramstyle="named")
    dialect.statement_compiler = _Compiler
    return dialect


def by_index(query: Select[Any], table: CoreTable, index: str) -> Select[Any]:
    """The query with the index that SQLite has to use."""
    return query.with_hint(table, f"INDEXED BY {index}", "sqlite")


def compile_for(dialect: Dialect, statement: ClauseElement, columns: Sequence[str] | None = None) -> str:
    """The statement's text; `columns` are those that an INSERT or UPDATE takes as binds."""
    return str(statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns)))


def at_most(query: Select[Any], bind: str) -> Select[Any]:
    """The query with a limit. Without an OFFSET of its own, SQLAlchemy adds one as a bind that nobody gives."""
    return query.limit(bindparam(bind)).offset(literal_column("0"))


class Statements:
    """The statements' texts. `insert` is the dialect's own, which knows ON CONFLICT."""

    def __init__(self, dialect: Dialect, insert: Callable[[CoreTable], Any]) -> None:
        self._dialect = dialect
        self._insert = insert
        self.proof = self._new(rows.PROOF.table, rows.PROOF.columns)
        self.answer = self._answer()
        self._chain_of_runs()
        self._chain_of_tenants()
        self.whole: Mapping[type, str] = {value: self._upsert(codec) for value, codec in rows.WHOLE.items()}
        self.entry = self._text(insert(ENTRIES), ENTRY_COLUMNS)
        self.payload = self._payload()
        self.erase = self._text(delete(rows.PAYLOAD.table).where(*self._here(rows.PAYLOAD.table)))
        self.forget = tuple(
            self._forget(table, *key)
            for table, key in (
                (rows.PAYLOAD.table, ("tenant", "chain", "c")),
                (rows.ANSWER.table, ("tenant", "scope")),
                (rows.PROOF.table, ("id",)),
            )
        )

    def _here(self, table: CoreTable) -> list[ColumnElement[bool]]:
        return [table.c[column.name] == bindparam(f"w_{column.name}") for column in table.primary_key.columns]

    def _text(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> str:
        return compile_for(self._dialect, statement, columns)

    def _new(self, table: CoreTable, columns: Sequence[str]) -> str:
        """INSERT; 0 rows when the key, or another unique value, is taken."""
        return self._text(self._insert(table).on_conflict_do_nothing(), columns)

    def _upsert(self, codec: rows.Codec[Any]) -> str:
        """INSERT or UPDATE; 0 rows when what is fixed would change."""
        insert, table = self._insert(codec.table), codec.table
        keys, fixed = {column.name for column in table.primary_key}, FIXED.get(codec.value, ())
        names = [column.name for column in table.columns]
        moved = {name: insert.excluded[name] for name in names if name not in keys and name not in fixed}
        same = and_(*(table.c[name] == insert.excluded[name] for name in fixed)) if fixed else None
        return self._text(insert.on_conflict_do_update(index_elements=sorted(keys), set_=moved, where=same), names)

    def _chain_of_runs(self) -> None:
        """Compare and move a run. `run_first` opens it: 0 rows when its id or its key is taken.

        `run_move` is for a run that goes on, `run_end` for one that ends or has ended: the end is final.
        """
        table, columns = rows.RUN.table, (*rows.RUN.columns, "lease_until")
        here = and_(
            table.c.tenant == bindparam("w_tenant"), table.c.id == bindparam("w_run"), table.c.seq == bindparam("w_seq")
        )
        lease: ColumnElement[int] = func.coalesce(bindparam("w_lease"), table.c.lease_until)
        same = and_(here, *(table.c[name] == bindparam(f"w_{name}") for name in RUN_FIXED))
        moved = [name for name in rows.RUN.columns if name not in {"tenant", "id", "ended_at", *RUN_FIXED}]
        goes_on = update(table).where(same, table.c.ended_at.is_(None)).values(lease_until=lease)
        self.run_first = self._new(table, columns)
        self.run_move = self._text(goes_on, moved)
        self.run_end = self._text(update(table).where(same).values(lease_until=lease), [*moved, "ended_at"])
        self.run_lease = self._text(update(table).where(here).values(lease_until=bindparam("w_lease")), ())
        self.run_stands = self._text(select(table.c.seq).where(here))

    def _chain_of_tenants(self) -> None:
        """Compare and move a tenant's own chain. A row with `seq` 0 is there when only its guard was raised so far."""
        table = rows.TENANT.table
        mine = table.c.id == bindparam("w_tenant")
        first = self._insert(table)
        moved = {name: first.excluded[name] for name in TENANT_MOVES}
        self.tenant_first = self._text(
            first.on_conflict_do_update(index_elements=["id"], set_=moved, where=table.c.seq == bindparam("w_seq")),
            rows.TENANT.columns,
        )
        self.tenant_move = self._text(update(table).where(mine, table.c.seq == bindparam("w_seq")), TENANT_MOVES)
        self.tenant_stands = self._text(select(table.c.seq, table.c.guard).where(mine))
        raising = self._insert(table)
        self.guard_raise = self._text(
            raising.on_conflict_do_update(
                index_elements=["id"], set_={"guard": table.c.guard + raising.excluded.guard}
            ),
            rows.TENANT.columns,
        )

    def _answer(self) -> str:
        """INSERT; an expired one is replaced; 0 rows when a living one is there."""
        table, insert = rows.ANSWER.table, self._insert(rows.ANSWER.table)
        moved = {name: insert.excluded[name] for name in rows.ANSWER.columns if name not in {"tenant", "scope"}}
        over = table.c.expires_at <= bindparam("w_now")
        replacing = insert.on_conflict_do_update(index_elements=["tenant", "scope"], set_=moved, where=over)
        return self._text(replacing, rows.ANSWER.columns)

    def _payload(self) -> str:
        """INSERT; one that is there stays, and lives as long as the longer-lived of its users (NULL: for ever)."""
        table, insert = rows.PAYLOAD.table, self._insert(rows.PAYLOAD.table)
        mine, new = table.c.expires_at, insert.excluded.expires_at
        lasts = case((or_(new.is_(None), new > mine), new), else_=mine)
        longer = insert.on_conflict_do_update(
            index_elements=["tenant", "chain", "c"], set_={"expires_at": lasts}, where=mine.is_not(None)
        )
        return self._text(longer, PAYLOAD_COLUMNS)

    def _forget(self, table: CoreTable, *key: str) -> str:
        """Delete at most `w_limit` rows whose time is over."""
        columns = [table.c[name] for name in key]
        over = select(*columns).where(table.c.expires_at <= bindparam("w_now"))
        return self._text(delete(table).where(tuple_(*columns).in_(at_most(over, "w_limit"))))
