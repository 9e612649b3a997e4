"""One write set, applied to an open transaction: first everything that may refuse it, then everything it writes.

Rules:
* The order is fixed: proof, guard, chain, stored answer, rows, entries, payloads. What is refused first is the answer:
  a replayed proof is told from a moved run, whoever else was faster.
* A refusal is raised here, after a statement touched no row; the caller rolls back to where the set began, so that a
  refused set leaves nothing behind, its `jti` included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy.dialects import sqlite

from stepgrant_broker.domain.commitments import Kept
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, VersionMoved
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.breaking import AFTER, AFTER_ENTRIES, AFTER_PROOF, AFTER_ROW
from stepgrant_broker.store.checking import CHAINS, chain_row
from stepgrant_broker.store.faults import WriteSetMalformed
from stepgrant_broker.store.statements import FIXED, PORTION, ROWS_AT_ONCE, RUN_FIXED, Statements, Text, sqlite_dialect
from stepgrant_broker.store.tables.ledger import ERASED

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Failpoints
    from stepgrant_broker.domain.writes import Row, WriteSet

SQL: Final = Statements(sqlite_dialect(), sqlite.insert)
NULL: Final = float("nan")
"""SQLite keeps it as NULL. For each `None` and each `bytes` that sqlite3 is given it looks for an adapter in four ways,
which was a tenth of what a begin's load and set took; for what is exactly a float or a bytearray it looks for none."""
Blob: TypeAlias = Callable[[bytes], object]
"""What a driver is given for bytes."""
_fixed_of_run = attrgetter(*RUN_FIXED)


def apply(db: sqlite3.Connection, writes: WriteSet, now: int, failpoints: Failpoints | None = None) -> None:
    """Write the set. Raises `ProofReplayed`, `GuardMoved`, `VersionMoved`, `AnswerTaken`, and what sqlite3 raises."""
    cursor = db.cursor()
    _spend_proof(cursor, writes)
    if failpoints is not None:
        failpoints.hit(AFTER_PROOF)
    _compare_guard(cursor, writes)
    if writes.run is None:
        _move_tenant(cursor, writes)
    else:
        _move_run(cursor, writes, writes.run)
    if writes.raise_guard:
        _named(cursor, SQL.guard_raise, rows.TENANT.encode(Tenant(writes.tenant, 0, GENESIS, 0, guard=1)))
    _take_answer(cursor, writes, now)
    for row in writes.rows:
        kind = type(row)
        if kind not in CHAINS:
            _write(cursor, kind, row)
            if failpoints is not None:
                failpoints.hit(AFTER.get(kind, AFTER_ROW))
    _write_many(cursor, SQL.entries, entry_rows(writes, NULL, bytearray))
    if failpoints is not None:
        failpoints.hit(AFTER_ENTRIES)
    _write_many(cursor, SQL.payloads, payload_rows(writes, NULL, bytearray))
    for c in writes.erase:
        _named(cursor, SQL.erase, {"w_tenant": writes.tenant, "w_chain": writes.run or "", "w_c": c})
    for text, binds in destruction(SQL, writes):
        _named(cursor, text, binds)


def _write(cursor: sqlite3.Cursor, kind: type[Any], row: Row) -> None:
    if not _touched(cursor, SQL.whole[kind], rows.WHOLE[kind].places(row, NULL)):
        raise WriteSetMalformed(f"a {kind.__name__} may not change {', '.join(FIXED[kind])}")


def _write_many(cursor: sqlite3.Cursor, texts: Mapping[int, Text], places: Sequence[tuple[Any, ...]]) -> None:
    for some in in_portions(places):
        _touched(cursor, texts[len(some)], sum(some, ()))


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


def entry_rows(writes: WriteSet, null: object = None, blob: Blob = bytes) -> list[tuple[Any, ...]]:
    """The rows of the entries, in the order of `statements.ENTRY_COLUMNS`. `null`: as of `Codec.places`."""
    chain = writes.run or ""
    return [
        (
            entry.tenant,
            chain,
            entry.seq,
            entry.type._value_,
            null if entry.step is None else entry.step,
            entry.ts,
            blob(entry.hash),
            blob(entry.data),
        )
        for entry in writes.entries
    ]


def payload_rows(writes: WriteSet, null: object = None, blob: Blob = bytes) -> list[tuple[Any, ...]]:
    """The rows of the payloads, each once, in the order of `statements.PAYLOAD_COLUMNS`. `null`: as above.

    The body of the stored answer passes with it, everything else stays.
    """
    answer = writes.answer
    passing, until = (None, null) if answer is None else (answer.answer_c, answer.expires_at)
    tenant, chain = writes.tenant, writes.run or ""
    found = []
    for kept in {payload.c: payload for payload in writes.payloads}.values():
        # What nobody sealed rests in clear (`sealing.Clear`).
        key_id, nonce = (kept.key_id, kept.nonce) if type(kept) is Kept else (None, None)
        sealed = (null if key_id is None else key_id, null if nonce is None else blob(nonce))
        passes = until if kept.c == passing else null
        found.append((tenant, chain, kept.c, kept.field, kept.form, blob(kept.body), *sealed, passes))
    return found


def _spend_proof(cursor: sqlite3.Cursor, writes: WriteSet) -> None:
    if writes.proof is not None and not _touched(cursor, SQL.proof, rows.PROOF.places(writes.proof)):
        raise ProofReplayed("the proof was used before")


def _compare_guard(cursor: sqlite3.Cursor, writes: WriteSet) -> None:
    if writes.guard is None:
        return
    found = _first(cursor, SQL.tenant_stands, (writes.tenant,))
    if (found[1] if found is not None else 0) != writes.guard:
        raise GuardMoved("the kill switch was thrown since the tenant was read")


def _move_run(cursor: sqlite3.Cursor, writes: WriteSet, run: str) -> None:
    text, places = run_move(SQL, writes, run, NULL)
    stands = text is SQL.run_stands
    if not (_first(cursor, text, places) is not None if stands else _touched(cursor, text, places)):
        raise VersionMoved("the run is not where it was read")


def run_move(sql: Statements, writes: WriteSet, run: str, null: object = None) -> tuple[Text, tuple[Any, ...]]:
    """The statement that compares and moves a run; `run_stands` answers with a row, the others touch one.

    `null`: as of `Codec.places`.
    """
    row = chain_row(writes)
    if type(row) is Run and writes.expect_seq:
        lease = null if writes.lease_until is None else writes.lease_until
        binds = (*rows.RUN.places(row, null), writes.tenant, run, writes.expect_seq, lease, *_fixed_of_run(row))
        if row.ended_at is None:
            return sql.run_move, sql.run_move_places(binds)
        return sql.run_end, sql.run_end_places(binds)
    if type(row) is Run:
        return sql.run_first, sql.run_first.places({**rows.RUN.encode(row), "lease_until": writes.lease_until or 0})
    text = sql.run_stands if writes.lease_until is None else sql.run_lease
    named = {"w_tenant": writes.tenant, "w_run": run, "w_seq": writes.expect_seq, "w_lease": writes.lease_until}
    return text, text.places(named)


def _move_tenant(cursor: sqlite3.Cursor, writes: WriteSet) -> None:
    text, places = tenant_move(SQL, writes)
    if text is SQL.tenant_stands:
        found = _first(cursor, text, places)
        moved = (found[0] if found is not None else 0) == writes.expect_seq
    else:
        moved = _touched(cursor, text, places)
    if not moved:
        raise VersionMoved("the tenant's chain is not where it was read")


def tenant_move(sql: Statements, writes: WriteSet) -> tuple[Text, tuple[Any, ...]]:
    """The statement that compares and moves a tenant's own chain; `tenant_stands` only shows where it stands."""
    row = chain_row(writes)
    binds: dict[str, Any] = {"w_tenant": writes.tenant, "w_seq": writes.expect_seq}
    text = sql.tenant_stands
    if isinstance(row, Tenant):
        text = sql.tenant_move if writes.expect_seq else sql.tenant_first
        binds = {**rows.TENANT.encode(row), "guard": 0, **binds}
    return text, text.places(binds)


def _take_answer(cursor: sqlite3.Cursor, writes: WriteSet, now: int) -> None:
    answer = writes.answer
    if answer is not None and not _touched(cursor, SQL.answer, (*rows.ANSWER.places(answer, NULL), now)):
        raise AnswerTaken("an equal call was answered beside this one")


def _named(cursor: sqlite3.Cursor, text: Text, binds: Mapping[str, Any]) -> None:
    _touched(cursor, text, text.places(binds))


def _touched(cursor: sqlite3.Cursor, text: Text, places: tuple[Any, ...]) -> bool:
    return cursor.execute(text.sql, places).rowcount > 0


def _first(cursor: sqlite3.Cursor, text: Text, places: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The only row of the answer. All of it is fetched, or the statement would go on reading beside what follows."""
    found: list[tuple[Any, ...]] = cursor.execute(text.sql, places).fetchall()
    return found[0] if found else None
