"""What a broker left on its disk, read by this process: no broker needs to run, and none is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from stepgrant.receipt import Event, read_event
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring import SystemClock

T = TypeVar("T")
TENANT: Final = "default"


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


def findings(folder: Path) -> list[str]:
    """What `stepgrant ledger verify` finds in the whole database."""

    async def read(_: SqliteStore, check: LedgerCheck) -> list[str]:
        return [str(finding) async for finding in check.findings()]

    return opened(folder, read)


def opened(folder: Path, read: Callable[[SqliteStore, LedgerCheck], Coroutine[Any, Any, T]]) -> T:
    """What `read` gives, on a broker's database."""

    async def work() -> T:
        store = SqliteStore(folder / "stepgrant.db", clock=SystemClock())
        try:
            return await read(store, LedgerCheck(store, store, LocalWrap.open(folder / "keys"), digest_of))
        finally:
            await store.close()

    return asyncio.run(work())
