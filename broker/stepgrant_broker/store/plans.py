"""Plans on a connection to SQLite: one question after the other, in one consistent view.

Rules:
* A plan that is one statement needs no transaction around it; one that asks for more begins anew in a transaction.
* A row that cannot be read back is `StoreUnavailable`: somebody else wrote it, and nothing may be decided on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeVar, cast

from stepgrant_broker.domain.errors import StepgrantFault, StoreUnavailable
from stepgrant_broker.store.asking import Ask, Found, Look
from stepgrant_broker.store.faults import unavailable
from stepgrant_broker.store.rows import RowDamaged

T = TypeVar("T")


def look_at(db: sqlite3.Connection, look: Look[T]) -> T:
    """What the plan returns. Raises what it raises, and `sqlite3.Error`."""
    plan = look()
    try:
        asks = next(plan)
        if len(asks) == 1:
            plan.send([_found(db, asks[0])])
    except StopIteration as done:
        return cast("T", done.value)
    plan.close()
    db.execute("BEGIN")
    try:
        return _follow(db, look)
    finally:
        # After some errors SQLite has ended the transaction by itself; ending it again would hide what was wrong.
        if db.in_transaction:
            db.execute("COMMIT")


def _follow(db: sqlite3.Connection, look: Look[T]) -> T:
    plan = look()
    try:
        asks: Sequence[Ask] = next(plan)
        while True:
            asks = plan.send([_found(db, asked) for asked in asks])
    except StopIteration as done:
        return cast("T", done.value)


def _found(db: sqlite3.Connection, asked: Ask) -> Found:
    return db.execute(asked.text.sql, asked.places).fetchall()


def told(error: Exception) -> StepgrantFault:
    """The domain error for what a plan met."""
    if isinstance(error, RowDamaged):
        return StoreUnavailable(f"{error}; stop the broker and restore the database")
    if isinstance(error, StepgrantFault):
        return error.with_traceback(None)
    return unavailable(error)
