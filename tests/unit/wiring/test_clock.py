"""Time never goes back in a process, whatever the system's clock does; identifiers are fresh."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from stepgrant_broker.wiring.clock import AdvancingClock, SystemClock, SystemIds

MS = 1_000_000


@dataclass
class Machine:
    """A machine whose two clocks a test sets."""

    wall: int = 1_800_000_000_000 * MS
    monotonic: int = 5 * MS

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall, lambda: self.monotonic)


def test_it_is_the_systems_time() -> None:
    assert abs(SystemClock().now() - time.time() * 1000) < 2000


def test_it_runs_with_the_monotonic_clock_when_the_wall_clock_is_set_back() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 3_600_000 * MS
    machine.monotonic += 10 * MS
    assert clock.now() == 1_800_000_000_010


def test_it_follows_the_wall_clock_forward() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 60_000 * MS
    machine.monotonic += 1 * MS
    assert clock.now() == 1_800_000_060_000
    machine.wall -= 60_000 * MS
    assert clock.now() == 1_800_000_060_000


def test_threads_see_one_time() -> None:
    clock = SystemClock()
    seen: list[list[int]] = [[], []]

    def look(into: list[int]) -> None:
        into.extend(clock.now() for _ in range(2000))

    threads = [threading.Thread(target=look, args=(into,)) for into in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(times == sorted(times) for times in seen)


def test_a_test_moves_time_forward_only() -> None:
    clock = AdvancingClock(Machine().clock())
    before = clock.now()
    clock.advance(5000)
    assert (clock.now() - before, clock.offset_ms) == (5000, 5000)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    assert clock.now() - before == 5000


def test_identifiers_are_fresh_and_in_order_of_time() -> None:
    ids = SystemIds()
    made = [ids.ulid(1_800_000_000_000) for _ in range(100)]
    assert len(set(made)) == 100
    assert {len(ulid) for ulid in made} == {26}
    assert ids.ulid(1_800_000_000_001) > max(made)
    assert len(ids.random(32)) == 32
    assert ids.random(32) != ids.random(32)
