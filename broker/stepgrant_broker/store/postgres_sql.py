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
from stepgrant_broker.store.statements import Statements, Text
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
