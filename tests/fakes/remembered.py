"""A run that its store remembers, for the tests of what it remembers."""

from __future__ import annotations

from fakes.hand import Hand
from stepgrant_broker.domain.writes import Query


async def same(broker: Hand, run: str, *steps: str) -> int:
    """Each step as it is recalled is as it is looked up; how many were recalled."""
    recalled = 0
    for step in steps:
        query = Query("acme", run=run, step=step, answer="x" * 64)
        known = broker.store.recall(query)
        if known is not None:
            recalled += 1
            assert known == await broker.store.load(query)
    return recalled


async def opened(broker: Hand, key: str = "job") -> str:
    """A run of which the first step is done."""
    run = str((await broker.open(key))["run"])
    await broker.begin(run, "first")
    await broker.complete(run, "first")
    return run
