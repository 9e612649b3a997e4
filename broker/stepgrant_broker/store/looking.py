"""The reads behind `Reads` and `SecretSource` that are no pages, on one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.reads import StoredEntry
from stepgrant_broker.domain.writes import Operator, PolicyText
from stepgrant_broker.store import rows
from stepgrant_broker.store.loading import SQL, one


def entries(db: sqlite3.Connection, tenant: str, chain: str, after: int, limit: int) -> tuple[StoredEntry, ...]:
    """Entries of a chain above `after`. Raises `InvalidRequest` for a negative limit, which SQLite reads as none."""
    if limit < 0:
        raise InvalidRequest("limit is not negative", field="limit")
    binds = {"tenant": tenant, "chain": chain, "after": after, "limit": limit}
    return tuple(StoredEntry(*row) for row in db.execute(SQL.entries, binds))


def payloads(db: sqlite3.Connection, tenant: str, chain: str, commitments: Sequence[str]) -> dict[str, Payload]:
    """The payloads that are there, by commitment."""
    found = (one(db, rows.PAYLOAD, SQL.payload, tenant=tenant, chain=chain, c=c) for c in dict.fromkeys(commitments))
    return {payload.c: payload for payload in found if payload is not None}


def operator_by_token(db: sqlite3.Connection, token_hash: str) -> tuple[Operator, str] | None:
    """The person with this token, and the name; nobody if removed, or if the name cannot be read any more.

    A person without a name could not be told from a run's principal, who must not approve.
    """
    row = db.execute(SQL.operator_by_token, {"token_hash": token_hash}).fetchone()
    return None if row is None else (rows.OPERATOR.decode(row), _name(row))


def operators(db: sqlite3.Connection, tenant: str) -> tuple[tuple[Operator, str], ...]:
    """All people of the tenant; an erased name is empty."""
    return tuple((rows.OPERATOR.decode(row), _name(row)) for row in db.execute(SQL.operators, {"tenant": tenant}))


def _name(row: Sequence[Any]) -> str:
    behind = row[len(rows.OPERATOR.columns) :]
    if behind[0] is None:
        return ""
    try:
        name = canonical.loads(rows.PAYLOAD.decode(behind).body)
    except canonical.CanonicalError:
        raise rows.RowDamaged("the name of an operator is damaged") from None
    if not isinstance(name, str):
        raise rows.RowDamaged("the name of an operator is damaged")
    return name


def policies(db: sqlite3.Connection, tenant: str) -> tuple[PolicyText, ...]:
    """All activated revisions, newest first, with empty `text`."""
    return tuple(rows.POLICY.decode((*row, b"")) for row in db.execute(SQL.policies, {"tenant": tenant}))


def lapsed(db: sqlite3.Connection, now: int, limit: int) -> tuple[tuple[str, str], ...]:
    """Open runs whose lease has lapsed, the longest lapsed first."""
    return tuple((tenant, run) for tenant, run in db.execute(SQL.lapsed, {"now": now, "limit": max(0, limit)}))


def leases_due(db: sqlite3.Connection, now: int, limit: int) -> tuple[tuple[str, str, str], ...]:
    """Grants for which something outside has to be taken back, the longest due first."""
    binds = {"now": now, "limit": max(0, limit)}
    return tuple((tenant, run, jti) for tenant, run, jti in db.execute(SQL.leases_due, binds))


def held(
    db: sqlite3.Connection, tenant: str, agent: str | None, workload: str | None, issuer: str | None
) -> tuple[str, ...]:
    """Runs that are not ended and have to do with any of these. NULL equals nothing: what is not asked finds none."""
    binds = {"tenant": tenant, "agent": agent, "workload": workload, "issuer": issuer}
    return tuple(run for (run,) in db.execute(SQL.held, binds))
