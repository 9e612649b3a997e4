"""Whether a store is whole after a fault of its PostgreSQL, and how soon it serves again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from conformance.store.making import Chain
from lateness import lateness
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store.postgres import PostgresStore

PATIENCE_S: Final = 40.0
BACK_S: Final = 1.0
"""How long after its return a server is served again, at the latest."""


async def there(store: PostgresStore, chain: Chain) -> int:
    """How many entries the chain has; rows and entries agree."""
    run = (await store.load(Query("acme", run=chain.run))).view.run
    entries = await store.entries("acme", chain.run, limit=10_000)
    assert [entry.seq for entry in entries] == list(range(0 if run is None else run.seq))
    return len(entries)


async def until_served(call: Callable[[], Any]) -> float:
    """How long it took until a call was answered, without that by which this machine was late."""
    started = time.monotonic()
    async with lateness() as late:
        while True:
            try:
                await call()
            except StoreUnavailable:
                assert time.monotonic() - started < PATIENCE_S
                await asyncio.sleep(0.02)
            else:
                break
    return time.monotonic() - started - late.seconds
