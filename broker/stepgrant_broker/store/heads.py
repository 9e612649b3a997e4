"""The first question of every `load`, as one statement: tenant, run, step, keys and stored answer in one row.

A `begin` of a new step needs nothing more, so it costs one statement, and one round trip where there are any.

sqlite3 names each column of each answer anew. So SQLite gives the parts that most calls find empty as one column each,
a JSON array, and no part says what the question named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, case, exists, func, literal_column, or_, select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import FromClause

from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Ask
from stepgrant_broker.store.statements import Moment, by_index, compile_for

PARTS: Final[Mapping[str, rows.Codec[Any]]] = {
    "tenant": rows.TENANT,
    "tenant_key": rows.CHAIN_KEY,
    "answer": rows.ANSWER,
    "run": rows.RUN,
    "key": rows.CHAIN_KEY,
    "step": rows.STEP,
}
"""What the row is made of, in order. Before it stands the store's time, behind it lease, approvals, kill switches."""

KNOWN: Final = {"tenant_key": 2, "key": 2}
"""So many first columns of a part the question names itself."""
SELDOM: Final = frozenset({"answer", "step"})
_unpacked = msgspec.json.Decoder(list).decode


class Head:
    """The statement for a run that is named by the columns `by`, and where its parts stand in the row."""

    def __init__(self, dialect: Dialect, moment: Moment, by: Sequence[str]) -> None:
        self._packed = SELDOM if dialect.name == "sqlite" else frozenset[str]()
        self._places: dict[str, slice] = {}
        at = 1
        for name, codec in PARTS.items():
            width = 1 if name in self._packed else len(codec.columns) - KNOWN.get(name, 0)
            self._places[name] = slice(at, at + width)
            at += width
        self._at = at
        self._text = compile_for(dialect, _statement(moment("now"), by, self._packed))
        self._binds = itemgetter(*self._text.names)

    def ask(self, **binds: str | int | None) -> Ask:
        """The question; a name that is not asked for is `None`."""
        return Ask(self._text, self._binds(binds))

    def part(self, row: Sequence[Any], name: str, *known: str) -> Any:  # noqa: ANN401 - the value of any part
        """The value of a part, given what is `KNOWN` of it; `None` when there is none. Raises `RowDamaged`."""
        found = row[self._places[name]]
        if found[0] is None:
            return None
        return PARTS[name].decode(_unpacked(found[0]) if name in self._packed else (*known, *found))

    def rest(self, row: Sequence[Any]) -> tuple[int, bool, bool]:
        """The end of the lease, and whether the step has approvals and the tenant kill switches that hold."""
        lease, approvals, quarantines = row[self._at :]
        return lease or 0, bool(approvals), bool(quarantines)


def _columns(name: str, table: FromClause, packed: frozenset[str]) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = [table.c[column] for column in PARTS[name].columns]
    if name in packed:
        return [case((columns[0].is_not(None), func.json_array(*columns)))]
    return columns[KNOWN.get(name, 0) :]


def _statement(now: ColumnElement[int], by: Sequence[str], packed: frozenset[str]) -> Any:  # noqa: ANN401 - a select
    tenant: BindParameter[str] = bindparam("tenant")
    step: BindParameter[str] = bindparam("step")
    tenants, answers, runs, steps = rows.TENANT.table, rows.ANSWER.table, rows.RUN.table, rows.STEP.table
    key, tenant_key = rows.CHAIN_KEY.table, rows.CHAIN_KEY.table.alias("tenant_keys")
    approvals, quarantines = rows.APPROVAL.table, rows.QUARANTINE.table
    asked = select(approvals.c.id).where(
        approvals.c.tenant == runs.c.tenant, approvals.c.run == runs.c.id, approvals.c.step == step
    )
    holding = select(quarantines.c.kind).where(
        quarantines.c.tenant == tenant, or_(quarantines.c.released_at.is_(None), quarantines.c.released_at > now)
    )
    joined: FromClause = select(literal_column("1").label("one")).subquery("one")
    for table, condition in (
        (tenants, tenants.c.id == tenant),
        (tenant_key, and_(tenant_key.c.tenant == tenant, tenant_key.c.run == literal_column("''"))),
        (answers, and_(answers.c.tenant == tenant, answers.c.scope == bindparam("scope"), answers.c.expires_at > now)),
        (runs, and_(runs.c.tenant == tenant, *(runs.c[name] == bindparam(name) for name in by))),
        (key, and_(key.c.tenant == runs.c.tenant, key.c.run == runs.c.id, runs.c.erased_at.is_(None))),
        (steps, and_(steps.c.tenant == runs.c.tenant, steps.c.run == runs.c.id, steps.c.key == step)),
    ):
        joined = joined.outerjoin(table, condition)
    of: dict[str, FromClause] = dict(zip(PARTS, (tenants, tenant_key, answers, runs, key, steps), strict=True))
    columns: list[ColumnElement[Any]] = [
        now,
        *(column for name, table in of.items() for column in _columns(name, table, packed)),
        runs.c.lease_until,
        exists(by_index(asked, approvals, "ix_approvals_step").correlate(runs)),
        exists(holding),
    ]
    # Nobody reads the names, and one letter is the only text that Python need not make anew.
    return select(*(column.label("a") for column in columns)).select_from(joined)
