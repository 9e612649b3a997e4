"""How much a store remembers of runs at most, and for how long the time that a database told is carried on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conformance.store.making import NOW, Chain
from fakes.hand import Hand, hand
from fakes.remembered import opened, same
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.domain.state import FailStatus, View
from stepgrant_broker.domain.writes import ChainKey, Loaded, Query, Tenant
from stepgrant_broker.store import remembering
from stepgrant_broker.store.remembering import SEEN_S, Memory, SeenClock
from stepgrant_broker.usecases.fail import fail


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Hand]:
    async with hand(tmp_path) as made:
        yield made


@pytest.mark.parametrize(("bound", "kept"), [("RUN_MAX", 0), ("NAMES_MAX", 0), ("RECENT", 1)])
async def test_a_long_run_is_forgotten_whole_and_of_old_steps_only_the_names_are_kept(
    broker: Hand, monkeypatch: pytest.MonkeyPatch, bound: str, kept: int
) -> None:
    monkeypatch.setattr(remembering, bound, 4)
    run = await opened(broker)
    for number in range(6):
        await broker.begin(run, f"s{number}")
    assert await same(broker, run, "new") == kept
    assert await same(broker, run, "s0") == 0
    assert await same(broker, run, "s5") == kept
    await fail(
        broker.ports, broker.agent(), run, "s0", 1, 1, status=FailStatus.UNKNOWN, error=None, request=broker.request()
    )
    assert await same(broker, run, "s0") == 0


async def test_the_run_that_was_longest_not_asked_for_goes_first(broker: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "NAMES_MAX", 17)
    runs = [await opened(broker, f"job-{number}") for number in range(3)]
    assert await same(broker, runs[0], "s1") == 1
    for number in range(3):
        await broker.begin(runs[2], f"s{number}")
    assert [await same(broker, run, "new") for run in runs] == [1, 0, 1]


async def test_runs_without_a_step_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "NAMES_MAX", 3)
    memory, runs = Memory(lambda: NOW), [Chain.of_run() for _ in range(5)]
    for run in runs:
        key = ChainKey("acme", run.the_run.id, Wrapped("kek", b"n" * 12, b"c" * 48))
        await memory.after(run.adds(1, rows=(key,)), asyncio.sleep(0))
        query = Query("acme", run=run.run, step="s1")
        await memory.looked_up(query, looked(run, key))
    known = [memory.recall(Query("acme", run=run.run, step="s1")) is not None for run in runs]
    assert known == [False, False, True, True, True]


async def looked(run: Chain, key: ChainKey) -> Loaded:
    """What a look at this run shows."""
    return Loaded(NOW, Tenant("acme", 0, GENESIS, 0), View(run.the_run), key=key)


def test_the_time_that_a_database_told_is_carried_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [100.0]
    monkeypatch.setattr(remembering, "monotonic", lambda: present[0])
    clock = SeenClock()
    assert clock.now() is None
    clock.saw(5_000, 100.0)
    present[0] = 100.25
    assert clock.now() == 5_250
    clock.saw(4_000, 99.0)
    assert clock.now() == 5_250
    present[0] = 100.0 + SEEN_S + 0.1
    assert clock.now() is None
