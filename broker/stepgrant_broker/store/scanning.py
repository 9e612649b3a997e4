"""The reads of a check of the whole database (`domain/scanning.py`), as plans.

Rules:
* Pages go by keys or by leaf index, so that memory stays bounded however large the tables are.
* No index is demanded: whoever dropped one would otherwise hide what it orders.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table as CoreTable
from sqlalchemy import and_, bindparam, exists, literal_column, or_, select, tuple_

from stepgrant_broker.domain.scanning import DerivedPage, RawEntry, Stray
from stepgrant_broker.domain.state import Epoch, Run
from stepgrant_broker.domain.writes import Operator
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Ask, Plan, ask
from stepgrant_broker.store.log import LogStatements
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.statements import ENTRIES, ENTRY_COLUMNS, Text, at_most, columns_of
from stepgrant_broker.store.tables.base import INTEGRATED, WAITING

FEW: Final = 20
TWICE: Final = 2
RAW: Final = (*ENTRY_COLUMNS, "leaf_index")
WAITS: Final = ("ts", "tenant", "chain", "seq")
OF_RUNS: Final = {
    "entries": "chain", "payloads": "chain", "chain_keys": "run", "run_epochs": "run", "steps": "run", "grants": "run",
    "approvals": "run",
}  # fmt: skip
"""Tables with rows of runs, and the column that names the run; empty for the tenant's own chain."""
OF_TENANTS: Final = (
    "entries", "payloads", "chain_keys", "runs", "workloads", "operators", "quarantines", "policies", "secrets",
)  # fmt: skip
DERIVED: Final = {codec.table.name: codec for codec in (rows.STEP, rows.GRANT)}
TABLES: Final = {
    codec.table.name: codec.table
    for codec in (
        rows.PAYLOAD, rows.CHAIN_KEY, rows.EPOCH, rows.STEP, rows.GRANT, rows.APPROVAL, rows.RUN, rows.WORKLOAD,
        rows.OPERATOR, rows.QUARANTINE, rows.POLICY, rows.SECRET,
    )
} | {"entries": ENTRIES}  # fmt: skip


@functools.cache
def _run_by_id(sql: Queries) -> Text:
    table = rows.RUN.table
    here = and_(table.c.tenant == bindparam("tenant"), table.c.id == bindparam("id"))
    return sql.text(select(*columns_of(rows.RUN)).where(here))


@functools.cache
def _people(sql: Queries) -> Text:
    table = rows.OPERATOR.table
    return sql.text(select(*columns_of(rows.OPERATOR)).where(table.c.tenant == bindparam("tenant")))


@functools.cache
def _between(sql: Queries) -> Text:
    here = and_(
        literal_column(INTEGRATED), ENTRIES.c.leaf_index >= bindparam("first"), ENTRIES.c.leaf_index < bindparam("end")
    )
    query = select(*(ENTRIES.c[name] for name in RAW)).where(here)
    return sql.text(at_most(query.order_by(ENTRIES.c.leaf_index, ENTRIES.c.tenant, ENTRIES.c.chain), "limit"))


@functools.cache
def _outside(sql: Queries) -> Text:
    where = or_(ENTRIES.c.leaf_index < literal_column("0"), ENTRIES.c.leaf_index >= bindparam("size"))
    query = select(*(ENTRIES.c[name] for name in RAW)).where(literal_column(INTEGRATED), where)
    return sql.text(at_most(query.order_by(ENTRIES.c.leaf_index), "limit"))


@functools.cache
def _waiting(sql: Queries, *, follows: bool) -> Text:
    query = select(*(ENTRIES.c[name] for name in RAW)).where(literal_column(WAITING))
    order = [ENTRIES.c[name] for name in WAITS]
    if follows:
        query = query.where(tuple_(*order) > tuple_(*(bindparam(f"after_{name}") for name in WAITS)))
    return sql.text(at_most(query.order_by(*order), "limit"))


@functools.cache
def _strays(sql: Queries) -> tuple[tuple[str, tuple[str, ...], Text], ...]:
    """For each table, the columns of what is missing, and the question."""
    found: list[tuple[str, tuple[str, ...], Text]] = []
    runs, tenants = rows.RUN.table, rows.TENANT.table
    for name, column in OF_RUNS.items():
        table = TABLES[name]
        of = and_(runs.c.tenant == table.c.tenant, runs.c.id == table.c[column])
        lost = and_(table.c[column] != literal_column("''"), ~exists(select(runs.c.id).where(of).correlate(table)))
        query = select(table.c.tenant, table.c[column]).where(lost).distinct()
        found.append((name, ("tenant", column), sql.text(at_most(query, "limit"))))
    for name in OF_TENANTS:
        table = TABLES[name]
        lost = ~exists(select(tenants.c.id).where(tenants.c.id == table.c.tenant).correlate(table))
        found.append((name, ("tenant",), sql.text(at_most(select(table.c.tenant).where(lost).distinct(), "limit"))))
    return tuple(found)


@functools.cache
def _derived(sql: Queries, name: str, *, follows: bool) -> Text:
    codec = DERIVED[name]
    keys = _keys(codec.table)
    query = select(*(codec.table.c[column] for column in (*codec.columns, *_computed(codec), *keys)))
    place = [codec.table.c[column] for column in keys]
    if follows:
        query = query.where(tuple_(*place) > tuple_(*(bindparam(f"after_{column}") for column in keys)))
    return sql.text(at_most(query.order_by(*place), "limit"))


def _keys(table: CoreTable) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key.columns)


def _computed(codec: rows.Codec[Any]) -> tuple[str, ...]:
    return tuple(name for name in codec.bound if name not in codec.columns)


def run_row(sql: Queries, tenant: str, run: str) -> Plan[tuple[Run | None, tuple[Epoch, ...]]]:
    """A run's row and its epochs, in one view."""
    found, epochs = yield [ask(_run_by_id(sql), tenant=tenant, id=run), ask(sql.epochs, tenant=tenant, run=run)]
    return rows.RUN.decode(found[0]) if found else None, tuple(map(rows.EPOCH.decode, epochs))


def people(sql: Queries, tenant: str) -> Plan[tuple[Operator, ...]]:
    """People without names."""
    (found,) = yield [ask(_people(sql), tenant=tenant)]
    return tuple(map(rows.OPERATOR.decode, found))


def leaves_between(sql: Queries, first: int, end: int) -> Plan[tuple[RawEntry, ...]]:
    """Entries with a leaf index in this range; of very many with one index, not all."""
    (found,) = yield [ask(_between(sql), first=first, end=end, limit=TWICE * (end - first))]
    return tuple(map(_raw, found))


def leaves_outside(sql: Queries, log: LogStatements, size: int) -> Plan[tuple[RawEntry, ...]]:
    """Entries with a leaf index that neither a tree of this size has nor the one of this very moment."""
    (heads,) = yield [ask(log.head)]
    size = max(size, heads[0][0] if heads else 0)
    (found,) = yield [ask(_outside(sql), size=size, limit=FEW)]
    return tuple(map(_raw, found))


def entries_waiting(sql: Queries, after: RawEntry | None, limit: int) -> Plan[tuple[RawEntry, ...]]:
    """Entries without a leaf index."""
    text = _waiting(sql, follows=after is not None)
    binds = {} if after is None else {f"after_{name}": getattr(after, name) for name in WAITS}
    (found,) = yield [Ask(text, text.places({**binds, "limit": limit}))]
    return tuple(map(_raw, found))


def _raw(found: Sequence[Any]) -> RawEntry:
    tenant, chain, seq, kind, step, ts, digest, data, leaf = found
    return RawEntry(tenant, chain, seq, kind, step, ts, _bytes(digest), _bytes(data), leaf)


def _bytes(value: object) -> bytes:
    """SQLite keeps any type in any column; what is no bytes is never what a hash is over."""
    return bytes(value) if isinstance(value, bytes | memoryview) else repr(value).encode()


def strays(sql: Queries) -> Plan[tuple[Stray, ...]]:
    """Rows without the row that they belong to."""
    asked = _strays(sql)
    answers = yield [ask(text, limit=FEW) for _, _, text in asked]
    return tuple(
        Stray(name, tuple(zip(columns, row, strict=True)))
        for (name, columns, _), answer in zip(asked, answers, strict=True)
        for row in answer
    )


def misderived(sql: Queries, name: str, after: tuple[str, ...] | None, limit: int) -> Plan[DerivedPage]:
    """A page of a table, each row's derived columns made again from the others. Damaged rows are left to others."""
    codec = DERIVED[name]
    keys, computed = _keys(codec.table), _computed(codec)
    text = _derived(sql, name, follows=after is not None)
    binds = {} if after is None else {f"after_{key}": part for key, part in zip(keys, after, strict=True)}
    (found,) = yield [Ask(text, text.places({**binds, "limit": limit}))]
    wrong = [stray for row in found if (stray := _wrong(codec, keys, computed, row)) is not None]
    following = tuple(found[-1][-len(keys) :]) if len(found) == limit else None
    return DerivedPage(tuple(wrong), following)


def _wrong(codec: rows.Codec[Any], keys: Sequence[str], computed: Sequence[str], row: Sequence[Any]) -> Stray | None:
    try:
        made = codec.encode(codec.decode(row))
    except (rows.RowDamaged, TypeError, ValueError, LookupError, AttributeError):
        return None
    stored = dict(zip(computed, row[len(codec.columns) :], strict=False))
    names = tuple(name for name in computed if stored[name] != made[name])
    key = (("tenant", made["tenant"]), ("run", made["run"]), (keys[-1], row[-1]))
    return Stray(codec.table.name, key, names) if names else None
