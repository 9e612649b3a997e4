"""Pages of runs, steps, grants and approvals, as plans.

Rules:
* A page ends where the next one begins (keyset): rows that come or go between two pages shift nothing.
* The cursor is opaque and holds only a position; the tenant and the filters come with every call anew.
* Identifiers begin with their time, so a tenant's newest rows are the last of its keys; only a run's steps are sorted.
* Filters are few, so their queries are compiled once for each combination.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, bindparam, select, tuple_

from stepgrant import canonical
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.reads import Listed, Page
from stepgrant_broker.domain.state import Approval, ApprovalStatus, Grant, GrantStatus, Run, Step
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Ask, Found, Plan
from stepgrant_broker.store.queries import Queries, said, words
from stepgrant_broker.store.statements import Text, at_most, by_index, columns_of
from stepgrant_broker.store.tables.base import ASKED, OPEN

T = TypeVar("T")
PAGE_MAX: Final = 1000


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A list in a fixed order. `order`: columns of types `cursor`; `own`: columns after those of the value.

    `index` serves the order, `index_of_run` finds the few rows of one run, which are then sorted. `index_of_live` is
    over the few rows that still matter, which meet `live`.
    """

    codec: rows.Codec[T]
    order: tuple[str, ...]
    index: str | None = None
    index_of_run: str | None = None
    index_of_live: str | None = None
    live: Callable[[Queries], Sequence[ColumnElement[bool]]] = lambda _: ()
    newest_first: bool = True
    own: tuple[str, ...] = ()
    cursor: tuple[type, ...] = (str,)


def _usable(sql: Queries) -> Sequence[ColumnElement[bool]]:
    grants = rows.GRANT.table.c
    return said(OPEN), words(grants.status, [GrantStatus.ISSUED]), grants.exp > sql.moment("now")


RUNS: Final = Listing(rows.RUN, ("id",), "sqlite_autoindex_runs_1", own=("lease_until",))
STEPS: Final = Listing(rows.STEP, ("position", "key"), newest_first=False, cursor=(int, str))
GRANTS: Final = Listing(rows.GRANT, ("jti",), None, "ix_grants_step", "ix_grants_pending", _usable)
APPROVALS: Final = Listing(
    rows.APPROVAL, ("id",), None, "ix_approvals_step", "ix_approvals_pending", lambda _: [said(ASKED)]
)


@functools.cache
def _text(sql: Queries, listing: Listing[Any], filters: frozenset[str], *, follows: bool, live: bool) -> Text:
    """The query of one page: rows that equal all filters, after the cursor if there is one, one more than asked."""
    table = listing.codec.table
    place = [table.c[name] for name in listing.order]
    query = select(*columns_of(listing.codec), *(table.c[name] for name in (*listing.own, *listing.order)))
    query = query.where(*(table.c[name] == bindparam(name) for name in sorted({"tenant", *filters})))
    if live:
        query = query.where(*listing.live(sql))
    if follows:
        here, there = tuple_(*place), tuple_(*(bindparam(f"after_{name}") for name in listing.order))
        query = query.where(here < there if listing.newest_first else here > there)
    query = query.order_by(*(column.desc() if listing.newest_first else column.asc() for column in place))
    index = (listing.index_of_run if "run" in filters else None) or listing.index
    index = listing.index_of_live if live else index
    return sql.text(at_most(query if index is None else by_index(query, table, index), "limit"))


def _page(
    sql: Queries,
    listing: Listing[Any],
    tenant: str,
    page: Page,
    filters: Mapping[str, str | None],
    *,
    live: bool = False,
    now: int | None = None,
) -> Plan[tuple[Found, str | None]]:
    """The raw rows of a page, and the cursor of the next. Raises `InvalidRequest`."""
    check_page(page)
    given = {name: value for name, value in filters.items() if value is not None}
    binds: dict[str, Any] = {**given, "tenant": tenant, "limit": page.limit + 1, "now": now}
    if page.after is not None:
        position = read_cursor(page.after, listing.cursor)
        binds.update({f"after_{name}": part for name, part in zip(listing.order, position, strict=True)})
    text = _text(sql, listing, frozenset(given), follows=page.after is not None, live=live)
    (found,) = yield [Ask(text, text.places(binds))]
    if len(found) <= page.limit:
        return found, None
    return found[: page.limit], write_cursor(found[page.limit - 1][-len(listing.order) :])


def check_page(page: Page) -> None:
    """Raises `InvalidRequest` for a page of a size that nobody gets."""
    if not 1 <= page.limit <= PAGE_MAX:
        raise InvalidRequest(f"a page has 1 to {PAGE_MAX} rows", field="limit")


def write_cursor(position: Sequence[Any]) -> str:
    """The opaque text of a position."""
    return canonical.b64u(canonical.dumps(list(position)))


def read_cursor(text: str, kinds: Sequence[type]) -> list[Any]:
    """The position that a cursor stands for, whose parts are of these types. Raises `InvalidRequest`."""
    try:
        position = canonical.loads(canonical.b64u_decode(text), max_bytes=2048)
    except canonical.CanonicalError:
        position = None
    if not isinstance(position, list) or [type(part) for part in position] != list(kinds):
        raise InvalidRequest("the cursor is not one that this list gave", field="after")
    return position


def runs(sql: Queries, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Plan[Listed[tuple[Run, int]]]:
    """Runs with the end of their lease."""
    found, after = yield from _page(sql, RUNS, tenant, page, filters)
    lease = len(rows.RUN.columns)
    return Listed(tuple((rows.RUN.decode(row), row[lease]) for row in found), after)


def steps(sql: Queries, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Plan[Listed[Step]]:
    """Steps by position."""
    found, after = yield from _page(sql, STEPS, tenant, page, filters)
    return Listed(tuple(rows.STEP.decode(row) for row in found), after)


def grants(
    sql: Queries, tenant: str, page: Page, filters: Mapping[str, str | None], *, live: bool, now: int | None
) -> Plan[Listed[Grant]]:
    """Grants; `live`: only those that are issued and not expired at this time, or at the database's."""
    found, after = yield from _page(sql, GRANTS, tenant, page, filters, live=live, now=now)
    return Listed(tuple(rows.GRANT.decode(row) for row in found), after)


def approvals(sql: Queries, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Plan[Listed[Approval]]:
    """Approvals. Those that are open have an index, which is not needed among the few of one run."""
    live = filters.get("run") is None and filters.get("status") == ApprovalStatus.PENDING
    filters = {**filters, "status": None} if live else filters
    found, after = yield from _page(sql, APPROVALS, tenant, page, filters, live=live)
    return Listed(tuple(rows.APPROVAL.decode(row) for row in found), after)
