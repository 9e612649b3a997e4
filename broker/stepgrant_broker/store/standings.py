"""How runs stand: pages of them with what decides whether each is resumable, and only those that are.

Rules:
* The condition of `resumable` is that of `domain.standing.is_resumable`, word by word; a test compares them.
* For one agent, as workers ask, only those are looked at that may be: parked runs that do not rest (`resting.py`),
  those whose rest is over, and open ones. Of each at most its approvals and its unfinished steps, which have indexes.
* Otherwise all runs that are not ended are looked at (`ix_runs_unended`).
* Those that are resumable come with the oldest first: whoever waits longest is not kept waiting by what came later.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from stepgrant_broker.domain import standing
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.reads import Listed, Page
from stepgrant_broker.domain.standing import Standing
from stepgrant_broker.domain.state import ApprovalStatus, RunState, StepState
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Ask, Plan
from stepgrant_broker.store.listing import check_page, read_cursor, write_cursor
from stepgrant_broker.store.queries import Queries, said, suspected, words
from stepgrant_broker.store.statements import Text, at_most, by_index, columns_of
from stepgrant_broker.store.tables.base import AWAKE, HELD, RESTING, UNENDED, UNFINISHED

RUNS: Final = rows.RUN.table


def _parked(reasons: Sequence[str]) -> ColumnElement[bool]:
    return and_(words(RUNS.c.state, [RunState.PARKED]), words(RUNS.c.park_reason, reasons))


def _pending() -> Select[Any]:
    """The unanswered approvals that the run waits for (`standing.waits_for`): the end of the last."""
    approvals = rows.APPROVAL.table
    query = (
        select(func.max(approvals.c.answer_by))
        .where(approvals.c.tenant == RUNS.c.tenant, approvals.c.run == RUNS.c.id)
        .where(words(approvals.c.status, [ApprovalStatus.PENDING]))
        .where(or_(words(approvals.c.step, [RESUME_STEP]), _parked(standing.ASKING)))
    )
    return by_index(query, approvals, "ix_approvals_step").correlate(RUNS)


def _doubtful() -> ColumnElement[bool]:
    steps = rows.STEP.table
    query = (
        select(steps.c.key)
        .where(steps.c.tenant == RUNS.c.tenant, steps.c.run == RUNS.c.id, said(UNFINISHED))
        .where(or_(words(steps.c.state, [StepState.IN_DOUBT]), suspected(steps.c.duplicate.is_(None))))
    )
    return exists(by_index(query, steps, "ix_steps_unfinished").correlate(RUNS))


def _answered(now: ColumnElement[int]) -> ColumnElement[bool]:
    return func.coalesce(_pending().scalar_subquery(), literal_column("0")) <= now


def _lapsed(now: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(words(RUNS.c.state, [RunState.OPEN]), RUNS.c.lease_until <= now, _answered(now))


def _free(now: ColumnElement[int]) -> ColumnElement[bool]:
    left_alone = words(RUNS.c.park_reason, standing.LEFT_ALONE)
    parked = and_(words(RUNS.c.state, [RunState.PARKED]), not_(left_alone))
    doubt = and_(words(RUNS.c.park_reason, [standing.IN_DOUBT]), _doubtful())
    return and_(parked, not_(doubt), _answered(now))


def shown(now: ColumnElement[int]) -> Select[Any]:
    """A run with what decides how it stands, as `known` reads it."""
    return select(*columns_of(rows.RUN), RUNS.c.lease_until, now, _pending().scalar_subquery(), _doubtful())


def known(row: Sequence[Any]) -> Standing:
    """The standing of a row."""
    width = len(rows.RUN.columns)
    return Standing(rows.RUN.decode(row), row[width], row[width + 1], row[width + 2], bool(row[width + 3]))


def _of_agent(every: Select[Any], now: ColumnElement[int], *, follows: bool) -> CompoundSelect[Any]:
    """Those that are resumable among those that may be, oldest first. No run is in two of the parts."""
    there: BindParameter[str] = bindparam("after_id")
    free = every.where(_free(now), *([RUNS.c.id > there] if follows else []))
    awake = by_index(free.where(said(AWAKE)), RUNS, "ix_runs_awake")
    due = free.where(said(RESTING), RUNS.c.rests_until <= now)
    epochs = rows.EPOCH.table
    held = select(epochs.c.run).where(epochs.c.tenant == bindparam("tenant"), said(HELD))
    # Asked of the epochs, not of the runs, or SQLite would rather look through all runs behind the place.
    held = held.where(epochs.c.run > there) if follows else held
    lapsed = every.where(_lapsed(now), RUNS.c.id.in_(by_index(held, epochs, "ix_run_epochs_held")))
    lapsed = by_index(lapsed, RUNS, "sqlite_autoindex_runs_1")
    parts = union_all(awake, by_index(due, RUNS, "ix_runs_resting"), lapsed)
    return parts.order_by(parts.selected_columns.id).limit(bindparam("limit")).offset(literal_column("0"))


@functools.cache
def _text(sql: Queries, filters: frozenset[str], *, follows: bool, resumable: bool) -> Text:
    now = sql.moment("now")
    query = shown(now).where(*(RUNS.c[name] == bindparam(name) for name in sorted({"tenant", *filters})))
    if resumable and "agent" in filters:
        return sql.text(_of_agent(query, now, follows=follows))
    if follows:
        there: BindParameter[str] = bindparam("after_id")
        query = query.where(RUNS.c.id > there if resumable else RUNS.c.id < there)
    if resumable:
        query = query.where(said(UNENDED), or_(_lapsed(now), _free(now)))
    query = query.order_by(RUNS.c.id.asc() if resumable else RUNS.c.id.desc())
    index = "ix_runs_unended" if resumable else "sqlite_autoindex_runs_1"
    return sql.text(at_most(by_index(query, RUNS, index), "limit"))


def standings(
    sql: Queries,
    tenant: str,
    page: Page,
    filters: Mapping[str, str | None],
    *,
    resumable: bool,
    now: int | None,
) -> Plan[Listed[Standing]]:
    """Runs newest first, or only those that are resumable, oldest first. Raises `InvalidRequest`."""
    check_page(page)
    given = {name: value for name, value in filters.items() if value is not None}
    binds: dict[str, Any] = {**given, "tenant": tenant, "limit": page.limit + 1, "now": now}
    if page.after is not None:
        (binds["after_id"],) = read_cursor(page.after, (str,))
    text = _text(sql, frozenset(given), follows=page.after is not None, resumable=resumable)
    (found,) = yield [Ask(text, text.places(binds))]
    shown = tuple(known(row) for row in found[: page.limit])
    more = len(found) > page.limit
    return Listed(shown, write_cursor([shown[-1].run.id]) if more else None)
