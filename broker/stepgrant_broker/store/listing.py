"""Pages of runs, steps, grants and approvals, on one connection.

Rules:
* A page ends where the next one begins (keyset): rows that come or go between two pages shift nothing.
* The cursor is opaque and holds only a position; the tenant and the filters come with every call anew.
* Filters are few, so their queries are compiled once for each combination.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import bindparam, select, tuple_

from stepgrant import canonical
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.reads import Listed, Page
from stepgrant_broker.domain.state import Approval, Grant, GrantStatus, Run, Step
from stepgrant_broker.store import rows
from stepgrant_broker.store.loading import SQL
from stepgrant_broker.store.queries import columns_of, said, words
from stepgrant_broker.store.statements import at_most, by_index
from stepgrant_broker.store.tables.base import OPEN

T = TypeVar("T")
PAGE_MAX: Final = 1000


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A list in a fixed order. `order`: a number and the rest of the key; `own`: columns after those of the value.

    `index` serves the order, `index_of_run` finds the few rows of one run, which are then sorted.
    """

    codec: rows.Codec[T]
    order: tuple[str, ...]
    index: str
    index_of_run: str | None = None
    newest_first: bool = True
    own: tuple[str, ...] = ()


RUNS: Final = Listing(rows.RUN, ("opened_at", "id"), "ix_runs_newest", own=("lease_until",))
STEPS: Final = Listing(rows.STEP, ("position", "key"), "ix_steps_position", newest_first=False)
GRANTS: Final = Listing(rows.GRANT, ("issued_at", "jti"), "ix_grants_newest", "ix_grants_step")
APPROVALS: Final = Listing(rows.APPROVAL, ("requested_at", "id"), "ix_approvals_newest", "ix_approvals_step")


@functools.cache
def _text(listing: Listing[Any], filters: frozenset[str], *, follows: bool, live: bool) -> str:
    """The query of one page: rows that equal all filters, after the cursor if there is one, one more than asked."""
    table = listing.codec.table
    place = [table.c[name] for name in listing.order]
    query = select(*columns_of(listing.codec), *(table.c[name] for name in (*listing.own, *listing.order)))
    query = query.where(*(table.c[name] == bindparam(name) for name in sorted({"tenant", *filters})))
    if live:
        issued = words(table.c.status, [GrantStatus.ISSUED])
        query = query.where(said(OPEN), issued, table.c.exp > bindparam("now"))
    if follows:
        here, there = tuple_(*place), tuple_(*(bindparam(f"after_{name}") for name in listing.order))
        query = query.where(here < there if listing.newest_first else here > there)
    query = query.order_by(*(column.desc() if listing.newest_first else column.asc() for column in place))
    index = (listing.index_of_run if "run" in filters else None) or listing.index
    return SQL.text(at_most(by_index(query, table, "ix_grants_open" if live else index), "limit"))


def _page(
    db: sqlite3.Connection,
    listing: Listing[Any],
    tenant: str,
    page: Page,
    filters: Mapping[str, str | None],
    *,
    live_at: int | None = None,
) -> tuple[list[tuple[Any, ...]], str | None]:
    """The raw rows of a page, and the cursor of the next. Raises `InvalidRequest`."""
    if not 1 <= page.limit <= PAGE_MAX:
        raise InvalidRequest(f"a page has 1 to {PAGE_MAX} rows", field="limit")
    given = {name: value for name, value in filters.items() if value is not None}
    binds: dict[str, Any] = {**given, "tenant": tenant, "limit": page.limit + 1, "now": live_at}
    if page.after is not None:
        position = read_cursor(page.after, len(listing.order))
        binds.update({f"after_{name}": part for name, part in zip(listing.order, position, strict=True)})
    sql = _text(listing, frozenset(given), follows=page.after is not None, live=live_at is not None)
    found = db.execute(sql, binds).fetchall()
    if len(found) <= page.limit:
        return found, None
    return found[: page.limit], write_cursor(found[page.limit - 1][-len(listing.order) :])


def write_cursor(position: Sequence[Any]) -> str:
    """The opaque text of a position."""
    return canonical.b64u(canonical.dumps(list(position)))


def read_cursor(text: str, length: int) -> list[Any]:
    """The position that a cursor stands for: a number, then texts. Raises `InvalidRequest`."""
    try:
        position = canonical.loads(canonical.b64u_decode(text), max_bytes=2048)
    except canonical.CanonicalError:
        position = None
    if (
        not isinstance(position, list)
        or len(position) != length
        or type(position[0]) is not int
        or not all(isinstance(part, str) for part in position[1:])
    ):
        raise InvalidRequest("the cursor is not one that this list gave", field="after")
    return position


def runs(db: sqlite3.Connection, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Listed[tuple[Run, int]]:
    """Runs with the end of their lease."""
    found, after = _page(db, RUNS, tenant, page, filters)
    lease = len(rows.RUN.columns)
    return Listed(tuple((rows.RUN.decode(row), row[lease]) for row in found), after)


def steps(db: sqlite3.Connection, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Listed[Step]:
    """Steps by position."""
    found, after = _page(db, STEPS, tenant, page, filters)
    return Listed(tuple(rows.STEP.decode(row) for row in found), after)


def grants(
    db: sqlite3.Connection, tenant: str, page: Page, filters: Mapping[str, str | None], live_at: int | None
) -> Listed[Grant]:
    """Grants; `live_at`: only those that are issued and not expired at that time."""
    found, after = _page(db, GRANTS, tenant, page, filters, live_at=live_at)
    return Listed(tuple(rows.GRANT.decode(row) for row in found), after)


def approvals(db: sqlite3.Connection, tenant: str, page: Page, filters: Mapping[str, str | None]) -> Listed[Approval]:
    """Approvals."""
    found, after = _page(db, APPROVALS, tenant, page, filters)
    return Listed(tuple(rows.APPROVAL.decode(row) for row in found), after)
