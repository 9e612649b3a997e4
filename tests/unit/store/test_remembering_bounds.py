"""How much a store remembers of runs at most, and for how long the time that a database told is carried on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.hand import Hand, hand
from fakes.remembered import opened, same
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.store import remembering
from stepgrant_broker.store.remembering import SEEN_S, SeenClock
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
    monkeypatch.setattr(remembering, "NAMES_MAX", 14)
    runs = [await opened(broker, f"job-{number}") for number in range(3)]
    assert await same(broker, runs[0], "s1") == 1
    for number in range(3):
        await broker.begin(runs[2], f"s{number}")
    assert [await same(broker, run, "new") for run in runs] == [1, 0, 1]


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
