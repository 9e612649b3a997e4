"""The sequencer beside grants: short batches with rests between them; alone, as fast as it can."""

from __future__ import annotations

import asyncio

import pytest

from stepgrant_broker.ledger.pacing import ALONE, BESIDE, LONGEST_S, QUIET_S, RESTS, Pace


class Time:
    """A clock and a counter of commits that the test moves, and what was slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.commits, self.slept = 100.0, 7, list[float]()
        self.pace = Pace(lambda: self.commits, monotonic=lambda: self.now)

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

        monkeypatch.setattr(asyncio, "sleep", sleep)

    async def batch(self, took: float, others: int = 0) -> int:
        """One batch; its size."""
        size = self.pace.batch()
        self.now += took
        self.commits += others
        await self.pace.rest()
        return size


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


async def test_alone_it_neither_rests_nor_makes_short_batches(time: Time) -> None:
    time.commits += 5  # before the round: they say nothing of now
    time.pace.enter()
    assert [await time.batch(0.004) for _ in range(20)] == [ALONE] * 20
    assert time.slept == []


async def test_beside_others_batches_are_short_and_it_rests_longer_than_it_works(time: Time) -> None:
    time.pace.enter()
    assert [await time.batch(0.004, others=1) for _ in range(4)] == [ALONE, BESIDE, BESIDE, BESIDE]
    assert time.slept == [pytest.approx(RESTS * 0.004)] * 4
    assert RESTS >= 1
    assert BESIDE * 2 <= ALONE


async def test_a_slow_batch_does_not_make_it_sleep_for_long(time: Time) -> None:
    time.pace.enter()
    await time.batch(3.0, others=1)
    assert time.slept == [LONGEST_S]


async def test_it_is_alone_again_once_others_are_quiet(time: Time) -> None:
    time.pace.enter()
    await time.batch(0.004, others=3)
    assert await time.batch(0.004) == BESIDE
    time.now += QUIET_S
    time.slept.clear()
    assert await time.batch(0.004) == ALONE
    assert time.slept == []
    time.pace.enter()
    assert await time.batch(0.004) == ALONE


async def test_a_new_round_goes_on_as_the_last_one_left_off(time: Time) -> None:
    """Under load every round would otherwise begin with a long batch."""
    time.pace.enter()
    await time.batch(0.004, others=1)
    time.pace.enter()
    assert await time.batch(0.004) == BESIDE
