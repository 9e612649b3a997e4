"""What `load` and the sweeper ask is found by key or by a partial index: no plan scans, sorts a run, or skips an index.

One run has 100,000 steps in the worst case; `begin` must not feel it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgrant_broker.store import connecting, listing, schema
from stepgrant_broker.store.applying import SQL as WRITES
from stepgrant_broker.store.loading import SQL as READS

PLANS = {
    "run": ["SEARCH runs USING INDEX sqlite_autoindex_runs_1 (tenant=? AND id=?)"],
    "run_by_key": ["SEARCH runs USING INDEX sqlite_autoindex_runs_2 (tenant=? AND agent=? AND key=?)"],
    "epochs": ["SEARCH run_epochs USING PRIMARY KEY (tenant=? AND run=?)"],
    "step": ["SEARCH steps USING PRIMARY KEY (tenant=? AND run=? AND key=?)"],
    "steps_unfinished": ["SEARCH steps USING INDEX ix_steps_unfinished (tenant=? AND run=?)"],
    "grant": ["SEARCH grants USING PRIMARY KEY (tenant=? AND jti=?)"],
    "grants_of_step": ["SEARCH grants USING INDEX ix_grants_step (tenant=? AND run=? AND step=?)"],
    "grants_open": ["SEARCH grants USING INDEX ix_grants_open (tenant=? AND run=?)"],
    "grants_of_unfinished": [
        "SEARCH steps USING INDEX ix_steps_unfinished (tenant=? AND run=?)",
        "SEARCH grants USING PRIMARY KEY (tenant=? AND jti=?)",
    ],
    "grants_live": ["SEARCH grants USING INDEX ix_grants_live (tenant=? AND run=? AND live_until>?)"],
    "approval": ["SEARCH approvals USING PRIMARY KEY (tenant=? AND id=?)"],
    "approvals_of_step": ["SEARCH approvals USING INDEX ix_approvals_step (tenant=? AND run=? AND step=?)"],
    "approvals_unconsumed": ["SEARCH approvals USING INDEX ix_approvals_step (tenant=? AND run=?)"],
    "chain_key": ["SEARCH chain_keys USING PRIMARY KEY (tenant=? AND run=?)"],
    "answer": ["SEARCH answers USING PRIMARY KEY (tenant=? AND scope=?)"],
    "payload": ["SEARCH payloads USING INDEX sqlite_autoindex_payloads_1 (tenant=? AND chain=? AND c=?)"],
    "entries": ["SEARCH entries USING INDEX sqlite_autoindex_entries_1 (tenant=? AND chain=? AND seq>?)"],
    "tenant": ["SEARCH tenants USING INDEX sqlite_autoindex_tenants_1 (id=?)"],
    "workload": ["SEARCH workloads USING INDEX sqlite_autoindex_workloads_2 (id=?)"],
    "quarantines": ["SEARCH quarantines USING INDEX sqlite_autoindex_quarantines_1 (tenant=?)"],
    "secret": ["SEARCH secrets USING INDEX sqlite_autoindex_secrets_1 (tenant=? AND name=?)"],
    "held": [
        "SEARCH runs USING INDEX ix_runs_unended (tenant=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH grants USING INDEX ix_grants_open (tenant=? AND run=?)",
    ],
    "lapsed": ["SCAN runs USING INDEX ix_runs_unended", "USE TEMP B-TREE FOR ORDER BY"],
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "store.db"
    schema.migrate(connecting.url_of(path))
    db = sqlite3.connect(path)
    yield db
    db.close()


def plan(db: sqlite3.Connection, sql: str) -> list[str]:
    binds = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", binds)]


@pytest.mark.parametrize("name", PLANS)
def test_plan(db: sqlite3.Connection, name: str) -> None:
    assert plan(db, getattr(READS, name)) == PLANS[name]


@pytest.mark.parametrize("listed", [listing.RUNS, listing.STEPS, listing.GRANTS, listing.APPROVALS])
@pytest.mark.parametrize("follows", [False, True])
def test_a_page_is_read_in_order(db: sqlite3.Connection, listed: listing.Listing[Any], follows: bool) -> None:  # noqa: FBT001
    """The next page of a long list costs what the first one does: nothing is sorted."""
    filters = frozenset({"run"} if listed is listing.STEPS else ())
    steps = plan(db, listing._text(listed, filters, follows=follows, live=False))
    assert len(steps) == 1
    assert steps[0].startswith(f"SEARCH {listed.codec.table.name} USING INDEX {listed.index} (tenant=?")


@pytest.mark.parametrize("name", ["run_move", "run_end", "run_lease", "run_stands"])
def test_a_run_is_moved_by_its_key(db: sqlite3.Connection, name: str) -> None:
    (step,) = plan(db, getattr(WRITES, name))
    assert step.startswith("SEARCH runs USING")
    assert step.endswith(("(tenant=? AND id=?)", "(tenant=? AND agent=? AND key=?)"))


def test_what_expires_is_found_by_its_time(db: sqlite3.Connection) -> None:
    for sql, table in zip(WRITES.forget, ("payloads", "answers", "proofs"), strict=True):
        assert any(f"ix_{table}_expires (expires_at<?)" in step for step in plan(db, sql))
