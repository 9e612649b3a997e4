"""One write set, applied to an open transaction: first everything that may refuse it, then everything it writes.

Rules:
* The order is fixed: proof, guard, chain, stored answer, rows, entries, payloads. What is refused first is the answer:
  a replayed proof is told from a moved run, whoever else was faster.
* A refusal is raised here, after a statement touched no row; the caller rolls back to where the set began, so that a
  refused set leaves nothing behind, its `jti` included.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import sqlite

from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, VersionMoved
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.checking import chain_row
from stepgrant_broker.store.faults import WriteSetMalformed
from stepgrant_broker.store.statements import FIXED, RUN_FIXED, Statements, sqlite_dialect

if TYPE_CHECKING:
    from stepgrant_broker.domain.entries import Entry
    from stepgrant_broker.domain.writes import Row, WriteSet

SQL: Final = Statements(sqlite_dialect(), sqlite.insert)


def apply(db: sqlite3.Connection, writes: WriteSet, now: int) -> None:
    """Write the set. Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken`, and what sqlite3 raises."""
    _spend_proof(db, writes)
    _compare_guard(db, writes)
    if writes.run is None:
        _move_tenant(db, writes)
    else:
        _move_run(db, writes, writes.run)
    if writes.raise_guard:
        db.execute(SQL.guard_raise, rows.TENANT.encode(Tenant(writes.tenant, 0, GENESIS, 0, guard=1)))
    _take_answer(db, writes, now)
    for row in writes.rows:
        if not isinstance(row, Run | Tenant):
            _write(db, row)
    chain = writes.run or ""
    db.executemany(SQL.entry, [_entry(chain, entry) for entry in writes.entries])
    db.executemany(SQL.payload, _payloads(writes, chain))
    if writes.erase:
        erased = [{"w_tenant": writes.tenant, "w_chain": chain, "w_c": c} for c in writes.erase]
        db.executemany(SQL.erase, erased)


def _write(db: sqlite3.Connection, row: Row) -> None:
    if not _touched(db, SQL.whole[type(row)], rows.WHOLE[type(row)].encode(row)):
        raise WriteSetMalformed(f"a {type(row).__name__} may not change {', '.join(FIXED[type(row)])}")


def _entry(chain: str, entry: Entry) -> rows.Row:
    return {
        "tenant": entry.tenant,
        "chain": chain,
        "seq": entry.seq,
        "type": entry.type.value,
        "step": entry.step,
        "ts": entry.ts,
        "hash": entry.hash,
        "data": entry.data,
    }


def _spend_proof(db: sqlite3.Connection, writes: WriteSet) -> None:
    if writes.proof is not None and not _touched(db, SQL.proof, rows.PROOF.encode(writes.proof)):
        raise ProofReplayed("the proof was used before")


def _compare_guard(db: sqlite3.Connection, writes: WriteSet) -> None:
    if writes.guard is None:
        return
    found = db.execute(SQL.tenant_stands, {"w_tenant": writes.tenant}).fetchone()
    if (found[1] if found is not None else 0) != writes.guard:
        raise GuardMoved("the kill switch was thrown since the tenant was read")


def _move_run(db: sqlite3.Connection, writes: WriteSet, run: str) -> None:
    row = chain_row(writes)
    here = {"w_tenant": writes.tenant, "w_run": run, "w_seq": writes.expect_seq, "w_lease": writes.lease_until}
    if isinstance(row, Run) and writes.expect_seq == 0:
        moved = _touched(db, SQL.run_first, {**rows.RUN.encode(row), "lease_until": writes.lease_until or 0})
    elif isinstance(row, Run):
        fixed = {f"w_{name}": getattr(row, name) for name in RUN_FIXED}
        moved = _touched(
            db, SQL.run_move if row.ended_at is None else SQL.run_end, {**rows.RUN.encode(row), **here, **fixed}
        )
    elif writes.lease_until is not None:
        moved = _touched(db, SQL.run_lease, here)
    else:
        moved = db.execute(SQL.run_stands, here).fetchone() is not None
    if not moved:
        raise VersionMoved("the run is not where it was read")


def _move_tenant(db: sqlite3.Connection, writes: WriteSet) -> None:
    row = chain_row(writes)
    here: dict[str, Any] = {"w_tenant": writes.tenant, "w_seq": writes.expect_seq}
    if isinstance(row, Tenant) and writes.expect_seq == 0:
        moved = _touched(db, SQL.tenant_first, {**rows.TENANT.encode(row), "guard": 0, **here})
    elif isinstance(row, Tenant):
        moved = _touched(db, SQL.tenant_move, {**rows.TENANT.encode(row), **here})
    else:
        found = db.execute(SQL.tenant_stands, here).fetchone()
        moved = (found[0] if found is not None else 0) == writes.expect_seq
    if not moved:
        raise VersionMoved("the tenant's chain is not where it was read")


def _take_answer(db: sqlite3.Connection, writes: WriteSet, now: int) -> None:
    answer = writes.answer
    if answer is not None and not _touched(db, SQL.answer, {**rows.ANSWER.encode(answer), "w_now": now}):
        raise AnswerTaken("an equal call was answered beside this one")


def _payloads(writes: WriteSet, chain: str) -> list[rows.Row]:
    """The payloads' rows; the body of the stored answer passes with it, everything else stays."""
    answer = writes.answer
    passing, until = (None, None) if answer is None else (answer.answer_c, answer.expires_at)
    return [
        {
            **rows.PAYLOAD.encode(payload),
            "tenant": writes.tenant,
            "chain": chain,
            "expires_at": until if payload.c == passing else None,
        }
        for payload in writes.payloads
    ]


def forget(db: sqlite3.Connection, now: int, limit: int) -> tuple[int, bool]:
    """Drop at most `limit` rows of each kind whose time is over: how many proofs and answers, and whether all went."""
    over = {"w_now": now, "w_limit": limit}
    payloads, answers, proofs = (db.execute(statement, over).rowcount for statement in SQL.forget)
    return answers + proofs, max(payloads, answers, proofs) < limit


def _touched(db: sqlite3.Connection, statement: str, binds: dict[str, Any]) -> bool:
    return db.execute(statement, binds).rowcount > 0
