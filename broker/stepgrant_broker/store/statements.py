"""Every statement that changes something, written once with SQLAlchemy Core and compiled once for a dialect.

Rules:
* What may be refused is refused by the number of rows that a statement touched, never by an exception, so that one
  refused set cannot abort the transaction that it shares with others.
* Binds are named after their columns; those of a condition begin with `w_`. A driver is given them by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.sql.compiler import SQLCompiler

from stepgrant_broker.domain.state import Approval, Grant, Step
from stepgrant_broker.store import rows, tables
from stepgrant_broker.store.tables.ledger import ERASED

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


RUN_BINDS: Final = (*rows.RUN.bound, "w_tenant", "w_run", "w_seq", "w_lease", *(f"w_{name}" for name in RUN_FIXED))
"""What `run_move` and `run_end` take their binds from by their places."""


class _Compiler(SQLiteCompiler):
    """SQLAlchemy has no words for SQLite's INDEXED BY; this lets hints through as they are."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:
        return text


def sqlite_dialect() -> Dialect:
    """SQLite as the driver speaks it, with hints.

    Without statistics SQLite takes a key's first column to be about as telling as an index over all that is asked, and
    would read a tenant's every grant. INDEXED BY leaves it no choice, and fails if the index does not serve.
    """
    dialect = sqlite.dialect(paramstyle="qmark")
    dialect.statement_compiler = _Compiler
    return dialect


def by_index(query: Select[Any], table: CoreTable, index: str) -> Select[Any]:
    """The query with the index that SQLite has to use."""
    return query.with_hint(table, f"INDEXED BY {index}", "sqlite")


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A statement as the driver takes it; `names` are its binds in the order of their places.

    Each is itself alone: what a link has prepared is found by it for every statement of every set.
    """

    sql: str
    names: tuple[str, ...]

    def places(self, binds: Mapping[str, Any]) -> tuple[Any, ...]:
        """The binds in their places. Raises `KeyError` for one that is missing."""
        return tuple([binds[name] for name in self.names])


def compile_for(dialect: Dialect, statement: ClauseElement, columns: Sequence[str] | None = None) -> Text:
    """The statement's text; `columns` are those that an INSERT or UPDATE takes as binds."""
    compiled = cast(
        "SQLCompiler", statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns))
    )
    return Text(str(compiled), tuple(compiled.positiontup or ()))


Moment: TypeAlias = Callable[[str], ColumnElement[int]]
"""The time that is bound to this name; where none is given, the database's own, if it has a clock."""


def given(name: str) -> ColumnElement[int]:
    """The `Moment` of a database without a clock of its own: the time is always given."""
    return bindparam(name, type_=BigInteger)


def columns_of(codec: rows.Codec[Any]) -> list[ColumnElement[Any]]:
    """The columns of a codec, in its order."""
    return [codec.table.c[name] for name in codec.columns]


def at_most(query: Select[Any], bind: str) -> Select[Any]:
    """The query with a limit. Without an OFFSET of its own, SQLAlchemy adds one as a bind that nobody gives."""
    return query.limit(bindparam(bind)).offset(literal_column("0"))


ROWS_AT_ONCE: Final = 4
PORTION: Final = 1000
"""So many rows of a kind an erasure drops in one transaction."""


class Statements:
    """The statements. `insert` is the dialect's own, which knows ON CONFLICT."""

    def __init__(self, dialect: Dialect, insert: Callable[[CoreTable], Any], moment: Moment = given) -> None:
        self._dialect = dialect
        self._insert = insert
        self.proof = _in_order(self._new(rows.PROOF.table, rows.PROOF.columns), rows.PROOF.bound)
        self.answer = self._answer(moment)
        self._chain_of_runs()
        self._chain_of_tenants()
        self.whole: Mapping[type, Text] = {value: self._upsert(codec) for value, codec in rows.WHOLE.items()}
        counts = range(1, ROWS_AT_ONCE + 1)
        self.entries = {count: self._entries(count) for count in counts}
        self.payloads = {count: self._payloads(count) for count in counts}
        self.erase = self._text(delete(rows.PAYLOAD.table).where(*self._here(rows.PAYLOAD.table)))
        self.drop_payloads = self._drop_payloads()
        self.drop_answer = self._text(delete(rows.ANSWER.table).where(*self._here(rows.ANSWER.table)))
        keys = rows.CHAIN_KEY.table
        self.destroy_key = self._text(update(keys).where(*self._here(keys)), tuple(ERASED))
        self.forget_payloads = self._forget_payloads()
        self.walks = (Walk(dialect, rows.PROOF.table), Walk(dialect, rows.ANSWER.table))

    def _here(self, table: CoreTable) -> list[ColumnElement[bool]]:
        return [table.c[column.name] == bindparam(f"w_{column.name}") for column in table.primary_key.columns]

    def _text(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> Text:
        return compile_for(self._dialect, statement, columns)

    def _new(self, table: CoreTable, columns: Sequence[str]) -> Text:
        """INSERT; 0 rows when the key, or another unique value, is taken."""
        return self._text(self._insert(table).on_conflict_do_nothing(), columns)

    def _upsert(self, codec: rows.Codec[Any]) -> Text:
        """INSERT or UPDATE, bound as `Codec.places` gives it; 0 rows when what is fixed would change."""
        insert, table = self._insert(codec.table), codec.table
        keys, fixed = {column.name for column in table.primary_key}, FIXED.get(codec.value, ())
        names = codec.bound
        moved = {name: insert.excluded[name] for name in names if name not in keys and name not in fixed}
        same = and_(*(table.c[name] == insert.excluded[name] for name in fixed)) if fixed else None
        whole = insert.on_conflict_do_update(index_elements=sorted(keys), set_=moved, where=same)
        return _in_order(self._text(whole, names), names)

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
        self.run_move_places, self.run_end_places = _places_of(self.run_move), _places_of(self.run_end)
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

    def _answer(self, moment: Moment) -> Text:
        """INSERT; an expired one is replaced; 0 rows when one lives. Bound as its codec gives it, then now."""
        table, insert = rows.ANSWER.table, self._insert(rows.ANSWER.table)
        moved = {name: insert.excluded[name] for name in rows.ANSWER.columns if name not in {"tenant", "scope"}}
        over = table.c.expires_at <= moment("w_now")
        replacing = insert.on_conflict_do_update(index_elements=["tenant", "scope"], set_=moved, where=over)
        return _in_order(self._text(replacing, rows.ANSWER.columns), [*rows.ANSWER.bound, "w_now"])

    def _entries(self, count: int) -> Text:
        """INSERT of so many entries; the binds of one stand behind those of the other."""
        return self._rows(self._insert(ENTRIES), ENTRY_COLUMNS, count)

    def _payloads(self, count: int) -> Text:
        """INSERT; one that is there stays, and lives as long as the longer-lived of its users (NULL: for ever)."""
        table, insert = rows.PAYLOAD.table, self._insert(rows.PAYLOAD.table)
        mine, new = table.c.expires_at, insert.excluded.expires_at
        lasts = case((or_(new.is_(None), new > mine), new), else_=mine)
        longer = insert.on_conflict_do_update(
            index_elements=["tenant", "chain", "c"], set_={"expires_at": lasts}, where=mine.is_not(None)
        )
        return self._rows(longer, PAYLOAD_COLUMNS, count)

    def _rows(self, insert: Any, columns: Sequence[str], count: int) -> Text:  # noqa: ANN401 - a dialect's INSERT
        names = [[f"{name}_{number}" for name in columns] for number in range(count)]
        values: list[dict[str, Any]] = [dict(zip(columns, map(bindparam, some), strict=True)) for some in names]
        return _in_order(self._text(insert.values(values)), [name for some in names for name in some])

    def _drop_payloads(self) -> Text:
        """Delete at most `w_limit` payloads of a run."""
        table = rows.PAYLOAD.table
        key = tuple_(*table.primary_key.columns)
        mine = and_(table.c.tenant == bindparam("w_tenant"), table.c.chain == bindparam("w_run"))
        some = at_most(select(*table.primary_key.columns).where(mine), "w_limit")
        return self._text(delete(table).where(key.in_(some)))

    def _forget_payloads(self) -> Text:
        """Delete at most `w_limit` bodies whose time is over: few rows expire, and those have an index."""
        table = rows.PAYLOAD.table
        key = tuple_(*table.primary_key.columns)
        over = select(*table.primary_key.columns).where(table.c.expires_at <= bindparam("w_now"))
        return self._text(delete(table).where(key.in_(at_most(over, "w_limit"))))


def _in_order(text: Text, names: Sequence[str]) -> Text:
    """The text, whose binds have to stand in this order. Raises `TypeError`: it would write into other columns."""
    if text.names != tuple(names):
        raise TypeError(f"the binds of {text.sql[:40]!r} stand in another order")
    return text


def _places_of(text: Text) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Puts what stands in the order of `RUN_BINDS` into the places of the text."""
    return itemgetter(*(RUN_BINDS.index(name) for name in text.names))


class Walk:
    """Forgetting without an index: a table's keys are walked in order, a stretch at a time.

    Every row of these tables expires, so an index over the time costs every commit a page, and every row that goes
    another one; their keys are hashes. A walk deletes the neighbours of one page together.
    """

    def __init__(self, dialect: Dialect, table: CoreTable) -> None:
        key = list(table.primary_key.columns)
        self.key = tuple(column.name for column in key)
        self.width = len(key)
        beyond = tuple_(*key) > tuple_(*(bindparam(f"w_after_{column.name}") for column in key))
        until = tuple_(*key) <= tuple_(*(bindparam(f"w_until_{column.name}") for column in key))
        over = table.c.expires_at <= bindparam("w_now")
        stretch = select(*key).where(beyond).order_by(*key)
        self.end = compile_for(dialect, stretch.limit(literal_column("1")).offset(bindparam("w_many")))
        self.drop = compile_for(dialect, delete(table).where(beyond, until, over))
        self.drop_rest = compile_for(dialect, delete(table).where(beyond, over))
