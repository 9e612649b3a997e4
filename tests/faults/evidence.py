"""What a broker left on its disk, read by this process: no broker needs to run, and none is believed.

`judged` is what a test of a broken run asserts to be empty: the referee's findings over all witnesses (`checker`), what
`stepgrant ledger verify` finds, and what the agent of these tests owes once it has ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from checker.check import check
from checker.reading import read_sqlite
from faults.processes import Agent, Line
from stepgrant.receipt import Event, read_event
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring import SystemClock

T = TypeVar("T")
TENANT: Final = "default"
DATABASE: Final = "stepgrant.db"
ONCE: Final = ("charge", "send")


@dataclass(frozen=True)
class Evidence:
    """A run's entries, and what `stepgrant ledger verify` finds in it: its chain, its tables, its stored values."""

    entries: tuple[Event, ...]
    findings: tuple[str, ...]


def of_run(folder: Path, run: str) -> Evidence:
    """The evidence of one run."""

    async def read(store: SqliteStore, check: LedgerCheck) -> Evidence:
        entries = [read_event(entry.data) for entry in await store.entries(TENANT, run, limit=10_000)]
        return Evidence(tuple(entries), tuple(str(one) for one in await check._run(TENANT, run)))

    return opened(folder, read)


def judged(folder: Path, agent: Agent, book: Sequence[Line]) -> list[str]:
    """All that is wrong with the run of an agent that was left alone until it ended; `book` is the target's."""
    left = of_run(folder, agent.run)
    witnesses = read_sqlite(folder / DATABASE, agent.run).beside(
        books=book, heard=[start.told for start in agent.starts]
    )
    return [*map(str, check(witnesses)), *left.findings, *_owed(left.entries, book)]


def _owed(entries: Sequence[Event], book: Sequence[Line]) -> Iterator[str]:
    """What the agent of these tests must have done by its end, and how often."""
    times = Counter(line["step"] for line in book if "did" in line)
    yield from (f"{step} happened {times[step]} times" for step in ONCE if times[step] != 1)
    yield from (f"{step} never happened" for step in ("read", "note") if times[step] < 1)
    if not entries or entries[-1].type != "run_ended" or entries[-1].part("outcome").get("status") != "completed":
        yield "the run was not completed"
    if len({line["answer"]["id"] for line in book if line.get("step") == "note" and "did" in line}) > 1:
        yield "the idempotent step got two answers"


def findings(folder: Path) -> list[str]:
    """What `stepgrant ledger verify` finds in the whole database."""

    async def read(_: SqliteStore, check: LedgerCheck) -> list[str]:
        return [str(finding) async for finding in check.findings()]

    return opened(folder, read)


def opened(folder: Path, read: Callable[[SqliteStore, LedgerCheck], Coroutine[Any, Any, T]]) -> T:
    """What `read` gives, on a broker's database."""

    async def work() -> T:
        wrap = LocalWrap.open(folder / "keys")
        store = SqliteStore(folder / DATABASE, clock=SystemClock(), seal=Seal(wrap))
        try:
            return await read(store, LedgerCheck(store, store, wrap, digest_of))
        finally:
            await store.close()

    return asyncio.run(work())
