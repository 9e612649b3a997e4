"""`ledger verify` and erasure: that values are gone is no finding, that something of them is left is one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes.hand import Hand, hand
from fakes.tale import whole_life
from stepgrant_broker.ledger.findings import Code, Finding, row
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.usecases.erase import erase_run


class Erased:
    """A run before and after its erasure."""

    def __init__(self, held: Hand, run: str, file: Path) -> None:
        self.held = held
        self.run = run
        self._file = file
        self._before = {table: self._rows(table) for table in ("chain_keys", "payloads")}

    def _rows(self, table: str) -> list[tuple[object, ...]]:
        column = "run" if table == "chain_keys" else "chain"
        with closing(sqlite3.connect(self._file)) as db:
            return db.execute(f"SELECT * FROM {table} WHERE {column} = ?", (self.run,)).fetchall()  # noqa: S608 - ours

    def put_back(self, table: str) -> None:
        """What a backup still had."""
        rows = self._before[table]
        marks = ", ".join("?" * len(rows[0]))
        with closing(sqlite3.connect(self._file)) as db:
            db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own tables
            db.commit()

    async def findings(self) -> list[Finding]:
        """What a check finds."""
        store = self.held.store
        check = LedgerCheck(store, store, self.held.ports.wrap, digest_of)
        return [finding async for finding in check.findings()]


@pytest.fixture
async def erased(tmp_path: Path) -> AsyncIterator[Erased]:
    async with hand(tmp_path) as held:
        run = await whole_life(held)
        made = Erased(held, run, tmp_path / "store" / "stepgrant.db")
        await erase_run(held.ports, held.operator, run)
        yield made


async def test_an_erased_run_holds(erased: Erased) -> None:
    assert await erased.findings() == []


async def test_a_key_that_came_back_is_found(erased: Erased) -> None:
    erased.put_back("chain_keys")
    found = await erased.findings()
    assert [(one.code, one.at) for one in found] == [
        (Code.NOT_ERASED, row("chain_keys", tenant="acme", run=erased.run))
    ]


async def test_values_that_came_back_are_found(erased: Erased) -> None:
    """With their key each is named; without it they cannot be opened, and the first one is."""
    erased.put_back("payloads")
    (found,) = await erased.findings()
    assert (found.code, found.at.table, found.run) == (Code.NOT_ERASED, "payloads", erased.run)
    erased.put_back("chain_keys")
    both = await erased.findings()
    assert {one.code for one in both} == {Code.NOT_ERASED}
    assert len([one for one in both if one.at.table == "payloads"]) > 20
