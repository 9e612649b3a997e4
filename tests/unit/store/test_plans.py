"""What `load` and the sweeper ask is found by key or by a partial index: no plan scans, sorts a run, or skips an index.

One run has 100,000 steps in the worst case; `begin` must not feel it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store import listing, resting, standings
from stepgrant_broker.store.applying import SQL as WRITES
from stepgrant_broker.store.heads import Head
from stepgrant_broker.store.loading import load
from stepgrant_broker.store.sealing import Clear
from stepgrant_broker.store.sqlite import LOG
from stepgrant_broker.store.sqlite import SQL as READS
from stepgrant_broker.store.statements import Text
from stepgrant_broker.wiring.fresh import new_database

PLANS = {
    "epochs": ["SEARCH run_epochs USING PRIMARY KEY (tenant=? AND run=?)"],
    "step": ["SEARCH steps USING PRIMARY KEY (tenant=? AND run=? AND key=?)"],
    "steps_unfinished": ["SEARCH steps USING INDEX ix_steps_unfinished (tenant=? AND run=?)"],
    "grant": ["SEARCH grants USING PRIMARY KEY (tenant=? AND jti=?)"],
    "grants_of_step": ["SEARCH grants USING INDEX ix_grants_step (tenant=? AND run=? AND step=?)"],
    "grants_open": ["SEARCH grants USING INDEX ix_grants_pending (tenant=? AND run=? AND is_open=?)"],
    "grants_of_unfinished": [
        "SEARCH steps USING INDEX ix_steps_unfinished (tenant=? AND run=?)",
        "SEARCH grants USING PRIMARY KEY (tenant=? AND jti=?)",
    ],
    "grants_live": ["SEARCH grants USING INDEX ix_grants_pending (tenant=? AND run=? AND is_open=? AND live_until>?)"],
    "approval": ["SEARCH approvals USING PRIMARY KEY (tenant=? AND id=?)"],
    "approvals_of_step": ["SEARCH approvals USING INDEX ix_approvals_step (tenant=? AND run=? AND step=?)"],
    "approvals_unconsumed": ["SEARCH approvals USING INDEX ix_approvals_step (tenant=? AND run=?)"],
    "chain_key": ["SEARCH chain_keys USING INDEX sqlite_autoindex_chain_keys_1 (tenant=? AND run=?)"],
    "payload": ["SEARCH payloads USING INDEX sqlite_autoindex_payloads_1 (tenant=? AND chain=? AND c=?)"],
    "entries": ["SEARCH entries USING INDEX sqlite_autoindex_entries_1 (tenant=? AND chain=? AND seq>?)"],
    "workload": ["SEARCH workloads USING INDEX sqlite_autoindex_workloads_2 (id=?)"],
    "quarantines": ["SEARCH quarantines USING INDEX sqlite_autoindex_quarantines_1 (tenant=?)"],
    "secret": ["SEARCH secrets USING INDEX sqlite_autoindex_secrets_1 (tenant=? AND name=?)"],
    "held": [
        "SEARCH runs USING INDEX ix_runs_unended (tenant=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH grants USING INDEX ix_grants_pending (tenant=? AND run=? AND is_open=?)",
    ],
    "had_runs": ["SEARCH runs USING INDEX sqlite_autoindex_runs_2 (tenant=? AND agent=?)"],
    "erasable": [
        "SEARCH runs USING INDEX ix_runs_kept (state=? AND ended_at>? AND ended_at<?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH grants USING COVERING INDEX ix_grants_pending (tenant=? AND run=? AND is_open=?)",
    ],
    "leases_due": ["SEARCH grants USING INDEX ix_grants_due (due_at>? AND due_at<?)"],
    "leases_left": ["SEARCH grants USING COVERING INDEX ix_grants_due (due_at>? AND due_at<?)"],
    "entries_waiting": ["SCAN entries USING INDEX ix_entries_waiting"],
    "runs_parked": ["SCAN runs USING INDEX ix_runs_unended"],
    "questions_open": [
        "SCAN approvals USING INDEX ix_approvals_pending",
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (tenant=? AND id=?)",
    ],
    "lapsed": [
        "SCAN run_epochs USING INDEX ix_run_epochs_held",
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (tenant=? AND id=?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "store.db"
    new_database(path)
    db = sqlite3.connect(path)
    yield db
    db.close()


def plan(db: sqlite3.Connection, text: Text) -> list[str]:
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text.sql}", [1] * len(text.names))]


@pytest.mark.parametrize("name", PLANS)
def test_plan(db: sqlite3.Connection, name: str) -> None:
    assert plan(db, getattr(READS, name)) == PLANS[name]


def test_a_stretch_of_a_chain_is_marked_by_its_key(db: sqlite3.Connection) -> None:
    by = "SEARCH entries USING INDEX sqlite_autoindex_entries_1 (tenant=? AND chain=? AND seq>? AND seq<?)"
    assert plan(db, LOG.mark) == [by]


HEAD = [
    "SEARCH tenants USING INDEX sqlite_autoindex_tenants_1 (id=?) LEFT-JOIN",
    "SEARCH tenant_keys USING INDEX sqlite_autoindex_chain_keys_1 (tenant=? AND run=?) LEFT-JOIN",
    "SEARCH answers USING PRIMARY KEY (tenant=? AND scope=?) LEFT-JOIN",
    "",
    "SEARCH chain_keys USING INDEX sqlite_autoindex_chain_keys_1 (tenant=? AND run=?) LEFT-JOIN",
    "SEARCH steps USING PRIMARY KEY (tenant=? AND run=? AND key=?) LEFT-JOIN",
    "CORRELATED SCALAR SUBQUERY 2",
    "SEARCH approvals USING COVERING INDEX ix_approvals_step (tenant=? AND run=? AND step=?)",
    "SCALAR SUBQUERY 3",
    "SEARCH quarantines USING INDEX sqlite_autoindex_quarantines_1 (tenant=?)",
]


@pytest.mark.parametrize(
    ("head", "by"),
    [
        (READS.by_id, "sqlite_autoindex_runs_1 (tenant=? AND id=?)"),
        (READS.by_key, "sqlite_autoindex_runs_2 (tenant=? AND agent=? AND key=?)"),
    ],
)
def test_the_first_statement_finds_each_part_by_its_key(db: sqlite3.Connection, head: Head, by: str) -> None:
    found = plan(db, head._text)
    found = [step for step in found if not step.startswith(("MATERIALIZE", "CO-ROUTINE", "SCAN"))]
    expected = [step or f"SEARCH runs USING INDEX {by} LEFT-JOIN" for step in HEAD]
    assert [step.split(" SUBQUERY")[0] for step in found] == [step.split(" SUBQUERY")[0] for step in expected]


@pytest.mark.parametrize("listed", [listing.RUNS, listing.GRANTS, listing.APPROVALS])
@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("filters", [frozenset(), frozenset({"state"})])
def test_a_page_is_read_in_order(
    db: sqlite3.Connection,
    listed: listing.Listing[Any],
    follows: bool,  # noqa: FBT001
    filters: frozenset[str],
) -> None:
    """The next page of a long list costs what the first one does: nothing is sorted."""
    names = filters if listed is listing.RUNS else frozenset()
    steps = plan(db, listing._text(READS, listed, names, follows=follows, live=False))
    assert len(steps) == 1
    assert steps[0].startswith(f"SEARCH {listed.codec.table.name} USING ")
    assert "(tenant=?" in steps[0]


LOOKS = [
    ("runs", "ix_runs_awake (tenant=? AND agent=?{})"),
    ("runs", "ix_runs_resting (tenant=? AND agent=? AND rests_until<?)"),
    ("runs", "sqlite_autoindex_runs_1 (tenant=? AND id=?)"),
    ("run_epochs", "ix_run_epochs_held (tenant=?{})"),
]


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("more", [frozenset(), frozenset({"workload"}), frozenset({"state"})])
def test_a_workers_look_finds_only_what_may_be_resumed(
    db: sqlite3.Connection,
    follows: bool,  # noqa: FBT001
    more: frozenset[str],
) -> None:
    """Each worker asks twice a second: it must not pass by all that waits, nor by all that other agents have."""
    text = standings._text(READS, more | {"agent"}, follows=follows, resumable=True)
    beyond = {"ix_runs_awake": " AND id>?", "ix_run_epochs_held": " AND run>?"} if follows else {}
    steps = [step for step in plan(db, text) if step.startswith(("SEARCH run", "SCAN"))]
    assert steps == [f"SEARCH {table} USING INDEX " + by.format(beyond.get(by.split()[0], "")) for table, by in LOOKS]


def test_what_can_be_noted_is_found_among_what_is_not_noted_yet(db: sqlite3.Connection) -> None:
    notes = resting.statements(READS)
    assert plan(db, notes.over) == [
        "SCAN run_epochs USING INDEX ix_run_epochs_held",
        "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (tenant=? AND id=?)",
    ]
    awake = plan(db, notes.awake)
    assert awake[0] == "SEARCH runs USING INDEX ix_runs_awake ((tenant,agent,id)>(?,?,?))"
    assert not [step for step in awake if "TEMP" in step]
    for text, table in ((notes.note_over, "run_epochs"), (notes.note_rest, "runs")):
        (step,) = plan(db, text)
        assert step.startswith(f"SEARCH {table} USING")
        assert "tenant=? AND " in step


@pytest.mark.parametrize("follows", [False, True])
def test_open_questions_are_read_in_order_and_no_others(db: sqlite3.Connection, follows: bool) -> None:  # noqa: FBT001
    """People's pages ask for them again and again, however many were ever asked."""
    text = listing._text(READS, listing.APPROVALS, frozenset(), follows=follows, live=True)
    beyond = " AND id<?" if follows else ""
    assert plan(db, text) == [f"SEARCH approvals USING INDEX ix_approvals_pending (tenant=?{beyond})"]


@pytest.mark.parametrize("follows", [False, True])
def test_the_steps_of_a_run_are_sorted_and_no_others(db: sqlite3.Connection, follows: bool) -> None:  # noqa: FBT001
    text = listing._text(READS, listing.STEPS, frozenset({"run"}), follows=follows, live=False)
    assert plan(db, text) == [
        "SEARCH steps USING PRIMARY KEY (tenant=? AND run=?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ]


@pytest.mark.parametrize("name", ["run_move", "run_end", "run_lease", "run_stands"])
def test_a_run_is_moved_by_its_key(db: sqlite3.Connection, name: str) -> None:
    (step,) = plan(db, getattr(WRITES, name))
    assert step.startswith("SEARCH runs USING")
    assert step.endswith(("(tenant=? AND id=?)", "(tenant=? AND agent=? AND key=?)"))


def test_what_expires_is_found_by_its_time_or_on_a_walk_over_the_keys(db: sqlite3.Connection) -> None:
    assert any("ix_payloads_expires (expires_at<?)" in step for step in plan(db, WRITES.forget_payloads))
    for walk in WRITES.walks:
        for text in (walk.end, walk.drop, walk.drop_rest):
            (step,) = plan(db, text)
            assert step.startswith("SEARCH")
            assert "USING PRIMARY KEY" in step


@pytest.mark.parametrize(("answer", "many"), [(None, 2), ("of-a-key", 1)])
def test_what_is_known_to_need_more_is_asked_for_with_the_first_statement(answer: str | None, many: int) -> None:
    """A plan of one question needs no transaction; one that turns out to need more is begun anew in one."""
    query = Query("acme", run="run_1", step="s", answer=answer)
    assert len(next(load(READS, query, 1, Clear()))) == many
