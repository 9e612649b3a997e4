"""Reading what a broker left behind, with SQL of the referee's own: no broker needs to run, and none is believed.

Each reader looks at one moment of the database, also while brokers write to it, and changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from checker.evidence import Evidence, Line, Record, Row, Tables

OF: Final[Mapping[str, str]] = {"entries": "chain", "runs": "id", "steps": "run", "grants": "run", "approvals": "run"}
"""The column of each table that names the run."""

Query = Callable[[str, Sequence[str]], Iterable[Row]]


def read_sqlite(path: Path | str, run: str | None = None) -> Evidence:
    """All that a SQLite database holds, or what it holds of one run and of its tenant's own chain.

    Raises `sqlite3.Error` for a file that is missing or no database.
    """
    with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as database:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA query_only = 1")
        database.execute("BEGIN")

        def query(text: str, values: Sequence[str]) -> Iterable[Row]:
            return (dict(row) for row in database.execute(text, values))

        return _read(query, "?", run)


def read_postgres(url: str, run: str | None = None) -> Evidence:
    """As `read_sqlite`, of a PostgreSQL database. Raises `psycopg.Error` when it cannot be read."""
    import psycopg  # noqa: PLC0415 - an extra
    from psycopg.rows import dict_row  # noqa: PLC0415

    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, row_factory=dict_row, connect_timeout=30) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

        def query(text: str, values: Sequence[str]) -> Iterable[Row]:
            return connection.execute(text.encode(), values).fetchall()

        return _read(query, "%s", run)


def _read(query: Query, mark: str, run: str | None) -> Evidence:
    def rows(table: str, columns: str = "*") -> list[Row]:
        text = f"SELECT {columns} FROM {table}"  # noqa: S608 - names of this module
        if run is None:
            return list(query(text, ()))
        either = f" OR {OF[table]} = ''" if table == "entries" else ""
        return list(query(f"{text} WHERE {OF[table]} = {mark}{either}", (run,)))

    entries = [
        Record(row["tenant"], row["chain"], row["seq"], bytes(row["hash"]), bytes(row["data"]))
        for row in rows("entries", "tenant, chain, seq, hash, data")
    ]
    tables = Tables(rows("runs"), rows("steps"), rows("grants"), rows("approvals"))
    return Evidence(entries, tables, read_at=int(time.time() * 1000))


def read_lines(path: Path | str) -> list[Line]:
    """The JSON lines of a file that only grows; a last line that its writer did not finish is left out."""
    data = Path(path).read_bytes()
    return [_line(text) for text in data[: data.rfind(b"\n") + 1].splitlines()]


def _line(text: bytes) -> dict[str, Any]:
    line = json.loads(text)
    if not isinstance(line, dict):
        raise TypeError(f"a line is a JSON object: {text[:80]!r}")
    return line
