"""The same statements for PostgreSQL, and the few that only it needs: locks, and the time of its own clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, bindparam, cast, func, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import PGDialect

from stepgrant_broker.domain.log import Leaf
from stepgrant_broker.store.erasing import ErasingQueries
from stepgrant_broker.store.keys import KeyStatements
from stepgrant_broker.store.log import LogStatements, Steps
from stepgrant_broker.store.resting import AtOnce
from stepgrant_broker.store.rewrapping import RewrapStatements
from stepgrant_broker.store.statements import FIXED, Statements, Text
from stepgrant_broker.store.tables.base import AWAKE, HELD

DIALECT: Final = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def _moment(clock: str) -> ColumnElement[int]:
    epoch = func.floor(literal_column(f"extract(epoch FROM {clock}) * 1000"))
    return cast(epoch, BigInteger)


def of_view(name: str) -> ColumnElement[int]:
    """The given time, or that at which the transaction began: one time for all that a view shows."""
    return func.coalesce(cast(bindparam(name), BigInteger), _moment("transaction_timestamp()"))


def of_now(name: str) -> ColumnElement[int]:
    """The given time, or that of the database now, however long the transaction waited for others."""
    return func.coalesce(cast(bindparam(name), BigInteger), _moment("clock_timestamp()"))


NOTE_OVER: Final = Text(
    "WITH free AS (SELECT tenant, run, epoch FROM run_epochs"  # noqa: S608 - words of ours
    " JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS wanted(tenant, run, epoch) USING (tenant, run, epoch)"
    f" WHERE {HELD} FOR NO KEY UPDATE OF run_epochs SKIP LOCKED)"
    " UPDATE run_epochs SET over = 1 FROM free"
    " WHERE (run_epochs.tenant, run_epochs.run, run_epochs.epoch) = (free.tenant, free.run, free.epoch)",
    ("tenants", "runs", "epochs"),
)
NOTE_REST: Final = Text(
    "WITH free AS (SELECT tenant, id, until_ms FROM runs"  # noqa: S608 - words of ours
    " JOIN unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS wanted(tenant, id, seq, until_ms)"
    f" USING (tenant, id, seq) WHERE {AWAKE} FOR NO KEY UPDATE OF runs SKIP LOCKED)"
    " UPDATE runs SET rests_seq = runs.seq, rests_until = free.until_ms FROM free"
    " WHERE (runs.tenant, runs.id) = (free.tenant, free.id)",
    ("tenants", "runs", "seqs", "until"),
)
READS: Final = AtOnce(DIALECT, of_view, over=NOTE_OVER, rest=NOTE_REST)
WRITES: Final = Statements(DIALECT, postgresql.insert, of_now)


MARK: Final = Text(
    "UPDATE entries SET leaf_index = wanted.at"
    " FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS wanted(tenant, chain, seq, at)"
    " WHERE (entries.tenant, entries.chain, entries.seq) = (wanted.tenant, wanted.chain, wanted.seq)"
    " AND leaf_index IS NULL",
    ("tenants", "chains", "seqs", "indexes"),
)


def at_once(_: LogStatements, first: int, leaves: Sequence[Leaf]) -> Steps:
    """One statement for all leaves: where each one would be a round trip."""
    if not leaves:
        return []
    columns = zip(
        *((one.tenant, one.chain, str(one.seq), str(first + at)) for at, one in enumerate(leaves)), strict=True
    )
    return [(MARK, tuple(columns))]


SEQUENCING: Final = Text("SELECT pg_try_advisory_xact_lock(22505, 0)", ())
"""Held by the one that appends to the log, until its transaction ends."""
LOG: Final = LogStatements(DIALECT, postgresql.insert, at_once, SEQUENCING)
KEYS: Final = KeyStatements(DIALECT, postgresql.insert)
REWRAP: Final = RewrapStatements(DIALECT)
ERASING: Final = ErasingQueries(DIALECT)

BEGIN_WRITE: Final = Text("BEGIN ISOLATION LEVEL READ COMMITTED", ())
BEGIN_VIEW: Final = Text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
COMMIT: Final = Text("COMMIT", ())
ROLLBACK: Final = Text("ROLLBACK", ())
SAVEPOINT: Final = Text("SAVEPOINT one", ())
BACK: Final = Text("ROLLBACK TO SAVEPOINT one", ())
RELEASE: Final = Text("RELEASE SAVEPOINT one", ())


LATE: Final = (
    "('stepgrant: others were faster, nothing is wrong; the set is looked at alone ' || clock_timestamp())::int"
)
"""Fails when, and only when, it is reached: these words are no number. They stand in the server's log then."""
NOTHING: Final = " ON CONFLICT DO NOTHING"


def or_fails(text: Text) -> Text:
    """The same statement as one that fails where it would touch or show no row; its answer is what it wrote.

    A common table expression for all of them would be simpler, but costs the server more than the round trip that this
    saves. A proof's INSERT has its own way to fail; that of a run would show the run's key in the server's log.
    """
    sql = text.sql
    if sql.startswith("SELECT"):
        one, wrote = f"SELECT 1 FROM ({sql}) AS found", 0  # noqa: S608 - words of ours
    elif sql.startswith("INSERT INTO proofs"):
        return Text(sql.removesuffix(NOTHING), text.names)
    elif sql.startswith("INSERT") and not sql.endswith(NOTHING):
        head, _, condition = sql.rpartition(" WHERE ")
        return Text(f"{head} WHERE CASE WHEN {condition} THEN 1 ELSE {LATE} END = 1", text.names)
    else:
        one, wrote = f"{sql} RETURNING 1", 1
    late = f"CASE count(*) WHEN 0 THEN {LATE} ELSE {wrote} END"
    return Text(f"WITH one AS ({one}) SELECT {late} FROM one", text.names)  # noqa: S608 - words of ours


def _tenant_at(column: str) -> Text:
    """A look at one number of a tenant, 0 where there is no tenant yet, that fails where another one is expected."""
    found = f"coalesce((SELECT {column} FROM tenants WHERE id = $1), 0)"  # noqa: S608 - a word of ours
    return Text(f"SELECT CASE {found} WHEN $2 THEN 0 ELSE {LATE} END", ("w_tenant", f"w_{column}"))


GUARD_OR_FAILS: Final = _tenant_at("guard")
SEQ_OR_FAILS: Final = _tenant_at("seq")
MOVES: Final = (
    WRITES.run_first,
    WRITES.run_move,
    WRITES.run_end,
    WRITES.run_lease,
    WRITES.run_stands,
    WRITES.tenant_first,
    WRITES.tenant_move,
)
OR_FAILS: Final = {
    text: or_fails(text) for text in (WRITES.proof, WRITES.answer, *MOVES, *(WRITES.whole[kind] for kind in FIXED))
}
"""What may be refused by the rows that it touches, as what ends its transaction then: COMMIT may stand behind it."""

GUARDED: Final = Text("SELECT pg_advisory_xact_lock_shared($1::int, $2::int)", ("class", "tenant"))
RAISING: Final = Text("SELECT pg_advisory_xact_lock($1::int, $2::int)", ("class", "tenant"))
"""A guard is compared under a shared lock and raised under an exclusive one, each until its transaction ends: a grant
is there before the kill switch, or sees it. The locks are in memory; row locks would write a page for each grant."""
LOCK_RUNS: Final = Text(
    "SELECT 1 FROM runs JOIN unnest($1::text[], $2::text[]) AS wanted(tenant, id) USING (tenant, id)"
    " ORDER BY runs.tenant, runs.id FOR NO KEY UPDATE OF runs",
    ("tenants", "ids"),
)
LOCK_TENANTS: Final = Text(
    "SELECT 1 FROM tenants WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE", ("tenants",)
)
SESSION: Final = (
    "SET statement_timeout = {statement_ms}; SET lock_timeout = {lock_ms};"
    " SET idle_in_transaction_session_timeout = {idle_ms};"
    # A server that is set to acknowledge what is not on its disk yet would break the first promise.
    " SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
)
