"""Many calls in one run at once: each gets its turn, and lines end when nobody stands in them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fakes.hand import Hand, with_limits
from stepgrant_broker.domain.errors import RetriesExhausted
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.usecases.turns import Turns

PLACE = ("acme", "run_1")


async def test_forty_calls_at_once_in_one_run_all_get_through(broker: Hand) -> None:
    run = (await broker.open())["run"]
    said = await asyncio.gather(*(broker.begin(run, f"s{n}") for n in range(40)))
    assert [answer["outcome"] for answer in said] == ["run"] * 40
    assert (await broker.entries(run)).count("grant_issued") == 40
    assert not broker.ports.turns.is_waited_for(("acme", run))


async def test_a_run_that_moves_at_every_try_is_given_up(broker: Hand) -> None:
    run = (await broker.open())["run"]
    other = replace(broker, ports=with_limits(broker.ports))
    broker.ports = with_limits(broker.ports, max_tries=3)
    steps = iter(range(100))

    def faster() -> None:
        raise VersionMoved("somebody was faster")

    broker.failpoints.armed = {"usecase.before_commit": faster}
    with pytest.raises(RetriesExhausted):
        await broker.begin(run, f"s{next(steps)}")
    broker.failpoints.armed = {}
    assert await broker.entries(run) == ["run_opened"]
    assert not broker.ports.turns.is_waited_for(("acme", run))
    assert (await other.begin(run))["outcome"] == "run"


async def test_turns_come_in_order_and_who_gives_up_leaves_the_line() -> None:
    turns, order = Turns(), list[int]()
    await turns.take(PLACE)

    async def stand(number: int) -> None:
        await turns.take(PLACE)
        order.append(number)
        turns.give(PLACE)

    waiting = [asyncio.create_task(stand(number)) for number in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    turns.give(PLACE)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == [0, 2]
    assert not turns.is_waited_for(PLACE)
