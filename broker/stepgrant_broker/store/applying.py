"""One write set, applied to an open transaction: first everything that may refuse it, then everything it writes.

Rules:
* The order is fixed: proof, guard, chain, stored answer, rows, entries, payloads. What is refused first is the answer:
  a replayed proof is told from a moved run, whoever else was faster.
* A refusal is raised here, after a statement touched no row; the caller rolls back to where the set began, so that a
  refused set leaves nothing behind, its `jti` included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as joined
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import sqlite

from stepgrant_broker.domain.commitments import Kept
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, VersionMoved
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.breaking import AFTER, AFTER_ENTRIES, AFTER_PROOF, AFTER_ROW
from stepgrant_broker.store.checking import chain_row
from stepgrant_broker.store.faults import WriteSetMalformed
from stepgrant_broker.store.statements import FIXED, PORTION, ROWS_AT_ONCE, RUN_FIXED, Statements, Text, sqlite_dialect
from stepgrant_broker.store.tables.ledger import ERASED

if TYPE_CHECKING:
    from stepgrant_broker.domain.commitments import Payload
    from stepgrant_broker.domain.ports import Failpoints
    from stepgrant_broker.domain.writes import Row, WriteSet

SQL: Final = Statements(sqlite_dialect(), sqlite.insert)


def apply(db: sqlite3.Connection, writes: WriteSet, now: int, failpoints: Failpoints | None = None) -> None:
    """Write the set. Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken`, and what sqlite3 raises."""
    _spend_proof(db, writes)
    if failpoints is not None:
        failpoints.hit(AFTER_PROOF)
    _compare_guard(db, writes)
    if writes.run is None:
        _move_tenant(db, writes)
    else:
        _move_run(db, writes, writes.run)
    if writes.raise_guard:
        _touched(db, SQL.guard_raise, rows.TENANT.encode(Tenant(writes.tenant, 0, GENESIS, 0, guard=1)))
    _take_answer(db, writes, now)
    for row in writes.rows:
        if not isinstance(row, Run | Tenant):
            _write(db, row)
            if failpoints is not None:
                failpoints.hit(AFTER.get(type(row), AFTER_ROW))
    _write_many(db, SQL.entries, entry_rows(writes))
    if failpoints is not None:
        failpoints.hit(AFTER_ENTRIES)
    _write_many(db, SQL.payloads, payload_rows(writes))
    for c in writes.erase:
        _touched(db, SQL.erase, {"w_tenant": writes.tenant, "w_chain": writes.run or "", "w_c": c})
    for text, binds in destruction(SQL, writes):
        _touched(db, text, binds)


def _write(db: sqlite3.Connection, row: Row) -> None:
    kind = type(row)
    if db.execute(SQL.whole[kind].sql, rows.WHOLE[kind].places(row)).rowcount < 1:
        raise WriteSetMalformed(f"a {kind.__name__} may not change {', '.join(FIXED[kind])}")


def _write_many(db: sqlite3.Connection, texts: Mapping[int, Text], places: Sequence[tuple[Any, ...]]) -> None:
    for some in in_portions(places):
        db.execute(texts[len(some)].sql, tuple(joined.from_iterable(some)))


def in_portions(places: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """As many rows as one statement takes, again and again."""
    for start in range(0, len(places), ROWS_AT_ONCE):
        yield places[start : start + ROWS_AT_ONCE]


def destruction(sql: Statements, writes: WriteSet) -> Iterator[tuple[Text, dict[str, Any]]]:
    """What `destroy` does of itself: the key, a portion of the payloads, and the answers that were found before."""
    if writes.destroy:
        mine = {"w_tenant": writes.tenant, "w_run": writes.run}
        yield sql.destroy_key, {**ERASED, **mine}
        yield sql.drop_payloads, {**mine, "w_limit": PORTION}
        for scope in writes.answers_gone:
            yield sql.drop_answer, {"w_tenant": writes.tenant, "w_scope": scope}


def entry_rows(writes: WriteSet) -> list[tuple[Any, ...]]:
    """The rows of the entries, in the order of `statements.ENTRY_COLUMNS`."""
    chain = writes.run or ""
    return [
        (entry.tenant, chain, entry.seq, entry.type._value_, entry.step, entry.ts, entry.hash, entry.data)
        for entry in writes.entries
    ]


def payload_rows(writes: WriteSet) -> list[tuple[Any, ...]]:
    """The rows of the payloads, each once; the body of the stored answer passes with it, everything else stays."""
    answer = writes.answer
    passing, until = (None, None) if answer is None else (answer.answer_c, answer.expires_at)
    chain = writes.run or ""
    return [
        (writes.tenant, chain, *rows.PAYLOAD.places(_kept(payload)), until if c == passing else None)
        for c, payload in {payload.c: payload for payload in writes.payloads}.items()
    ]


def _kept(payload: Payload | Kept) -> Kept:
    """As it rests: what nobody sealed rests in clear (`sealing.Clear`)."""
    return payload if isinstance(payload, Kept) else Kept(payload.c, payload.field, payload.form, payload.body)


def _spend_proof(db: sqlite3.Connection, writes: WriteSet) -> None:
    if writes.proof is not None and not _touched(db, SQL.proof, rows.PROOF.encode(writes.proof)):
        raise ProofReplayed("the proof was used before")


def _compare_guard(db: sqlite3.Connection, writes: WriteSet) -> None:
    if writes.guard is None:
        return
    found = _first(db, SQL.tenant_stands, {"w_tenant": writes.tenant})
    if (found[1] if found is not None else 0) != writes.guard:
        raise GuardMoved("the kill switch was thrown since the tenant was read")


def _move_run(db: sqlite3.Connection, writes: WriteSet, run: str) -> None:
    text, binds = run_move(SQL, writes, run)
    if not (_first(db, text, binds) is not None if text is SQL.run_stands else _touched(db, text, binds)):
        raise VersionMoved("the run is not where it was read")


def run_move(sql: Statements, writes: WriteSet, run: str) -> tuple[Text, Mapping[str, Any]]:
    """The statement that compares and moves a run; `run_stands` answers with a row, the others touch one."""
    row = chain_row(writes)
    here = {"w_tenant": writes.tenant, "w_run": run, "w_seq": writes.expect_seq, "w_lease": writes.lease_until}
    if isinstance(row, Run) and writes.expect_seq == 0:
        return sql.run_first, {**rows.RUN.encode(row), "lease_until": writes.lease_until or 0}
    if isinstance(row, Run):
        fixed = {f"w_{name}": getattr(row, name) for name in RUN_FIXED}
        return (sql.run_move if row.ended_at is None else sql.run_end), {**rows.RUN.encode(row), **here, **fixed}
    return (sql.run_stands if writes.lease_until is None else sql.run_lease), here


def _move_tenant(db: sqlite3.Connection, writes: WriteSet) -> None:
    text, binds = tenant_move(SQL, writes)
    if text is SQL.tenant_stands:
        found = _first(db, text, binds)
        moved = (found[0] if found is not None else 0) == writes.expect_seq
    else:
        moved = _touched(db, text, binds)
    if not moved:
        raise VersionMoved("the tenant's chain is not where it was read")


def tenant_move(sql: Statements, writes: WriteSet) -> tuple[Text, Mapping[str, Any]]:
    """The statement that compares and moves a tenant's own chain; `tenant_stands` only shows where it stands."""
    row = chain_row(writes)
    here: dict[str, Any] = {"w_tenant": writes.tenant, "w_seq": writes.expect_seq}
    if not isinstance(row, Tenant):
        return sql.tenant_stands, here
    if writes.expect_seq == 0:
        return sql.tenant_first, {**rows.TENANT.encode(row), "guard": 0, **here}
    return sql.tenant_move, {**rows.TENANT.encode(row), **here}


def _take_answer(db: sqlite3.Connection, writes: WriteSet, now: int) -> None:
    answer = writes.answer
    if answer is not None and not _touched(db, SQL.answer, {**rows.ANSWER.encode(answer), "w_now": now}):
        raise AnswerTaken("an equal call was answered beside this one")


def _touched(db: sqlite3.Connection, text: Text, binds: Mapping[str, Any]) -> bool:
    return db.execute(text.sql, text.places(binds)).rowcount > 0


def _first(db: sqlite3.Connection, text: Text, binds: Mapping[str, Any]) -> tuple[Any, ...] | None:
    found: tuple[Any, ...] | None = db.execute(text.sql, text.places(binds)).fetchone()
    return found
