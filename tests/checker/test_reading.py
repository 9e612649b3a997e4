"""Reading what a broker left behind, from files and databases that know nothing of it either."""

from __future__ import annotations

import ast
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from checker.check import check
from checker.evidence import Evidence
from checker.ledgers import Ledger
from checker.lives import started
from checker.reading import read_lines, read_postgres, read_sqlite
from yardstick import reference_seconds

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

FOLDER: Final = Path(__file__).parent
ALLOWED: Final = {"checker", "psycopg", "pytest", "stepgrant", "stepgrant_services", "yardstick"}
OF_THE_SDK: Final = {"stepgrant.canonical", "stepgrant.receipt"}
TABLES: Final = ("runs", "steps", "grants", "approvals")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, and every text that could be the name of one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"__import__", "importlib.import_module"}:
            yield "anything"


def test_the_referee_knows_nothing_of_the_broker() -> None:
    names = {(path.name, name) for path in FOLDER.rglob("*.py") for name in imported(path)}
    roots = {(path, name.partition(".")[0]) for path, name in names}
    assert {root for _, root in roots} - set(sys.stdlib_module_names) <= ALLOWED, sorted(roots)
    assert {name for _, name in names if name.partition(".")[0] == "stepgrant"} <= OF_THE_SDK


def sql_of(evidence: Evidence) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Statements that make the database that holds this."""
    yield "CREATE TABLE entries (tenant TEXT, chain TEXT, seq BIGINT, hash {blob}, data {blob}, leaf_index BIGINT)", ()
    for one in evidence.entries:
        values = (one.tenant, one.chain, one.seq, one.hash, one.data)
        yield "INSERT INTO entries (tenant, chain, seq, hash, data) VALUES (?, ?, ?, ?, ?)", values
    for table in TABLES:
        rows = getattr(evidence.tables, table)
        columns = sorted({name for row in rows for name in row}) or ["run"]
        kinds = {name: "BIGINT" if any(isinstance(row[name], int) for row in rows) else "TEXT" for name in columns}
        yield f"CREATE TABLE {table} ({', '.join(f'{name} {kinds[name]}' for name in columns)})", ()
        for row in rows:
            marks = ", ".join("?" for _ in columns)
            insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of this test
            yield insert, tuple(row[name] for name in columns)


def two_runs() -> Evidence:
    """Two runs of one tenant."""
    one, two = started().evidence(books=[], heard=[]), started("run_2", "other")
    other = two.evidence()
    assert one.tables is not None
    assert other.tables is not None
    rows = {name: [*getattr(one.tables, name), *getattr(other.tables, name)] for name in TABLES}
    return replace(one, entries=[*one.entries, *other.entries[1:]], tables=replace(one.tables, **rows))


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "stepgrant.db"
    with closing(sqlite3.connect(path)) as database, database:
        for text, values in sql_of(two_runs()):
            database.execute(text.replace("{blob}", "BLOB"), values)
    return path


def test_sqlite_is_read(sqlite_file: Path) -> None:
    read = read_sqlite(sqlite_file)
    assert sorted(read.entries, key=str) == sorted(two_runs().entries, key=str)
    assert check(read) == []
    assert abs(read.read_at - time.time() * 1000) < 60_000


def test_one_run_is_read_with_its_tenants_chain(sqlite_file: Path) -> None:
    read = read_sqlite(sqlite_file, "run_2")
    assert {record.chain for record in read.entries} == {"", "run_2"}
    assert read.tables is not None
    assert {row["run"] for row in [*read.tables.steps, *read.tables.grants]} == {"run_2"}
    assert check(read) == []


def test_what_is_in_the_database_is_judged(sqlite_file: Path) -> None:
    with closing(sqlite3.connect(sqlite_file)) as database, database:
        database.execute("DELETE FROM entries WHERE chain = 'run_2' AND seq = 3")
        database.execute("UPDATE grants SET exp = exp + 1 WHERE run = 'run_1'")
    assert {(one.run, one.invariant) for one in check(read_sqlite(sqlite_file))} == {("run_1", "I3"), ("run_2", "I4")}


def test_a_database_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        read_sqlite(tmp_path / "stepgrant.db")
    assert list(tmp_path.iterdir()) == []


def test_postgres_is_read(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with psycopg.connect(url) as connection:
        for text, values in sql_of(two_runs()):
            connection.execute(text.replace("{blob}", "BYTEA").replace("?", "%s").encode(), values)
    read = read_postgres(url)
    assert sorted(read.entries, key=str) == sorted(two_runs().entries, key=str)
    assert check(read) == check(read_postgres(url, "run_2")) == []


def test_lines_are_read_without_one_that_was_cut(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.write_bytes(b'{"did": "a"}\n{"did": "b"}\n{"did": "c')
    assert read_lines(book) == [{"did": "a"}, {"did": "b"}]
    book.write_bytes(b"[1]\n")
    with pytest.raises(TypeError):
        read_lines(book)
    book.write_bytes(b"{x}\n")
    with pytest.raises(json.JSONDecodeError):
        read_lines(book)


HUNDREDS: Final = """
import yardstick
from checker.check import check
from checker.evidence import Evidence
from checker.lives import started

runs = [started(f"run_{number}", f"job-{number}") for number in range(200)]
entries = [record for run in runs for record in run.records()[1:]]

def judge():
    assert check(Evidence(entries)) == []

yardstick.report(judge)
"""


def test_hundreds_of_runs_are_judged_in_a_second() -> None:
    """So that the referee never makes anybody run fewer of them. Measured: 0.6 ms for a run of 19 entries."""
    assert reference_seconds(HUNDREDS, below=1) < 1


def test_a_ledger_by_hand_is_one_chain() -> None:
    ledger = Ledger()
    ledger.open()
    assert [record.seq for record in ledger.records()] == [0, 0]
