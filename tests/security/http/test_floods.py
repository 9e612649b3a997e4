"""One workload reads, or exchanges, as often as it can: it is told to slow down, everybody else goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.served import Broker, Caller, enrolled, served
from stepgrant_broker.api import auth

KEPT = 12
SHARE = KEPT // 4


@pytest_asyncio.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    """A broker that remembers few reads."""
    monkeypatch.setattr(auth, "READS_KEPT", KEPT)
    async with served(tmp_path) as broker:
        yield broker


async def other(broker: Broker, name: str) -> Caller:
    """A process of another workload, with a token."""
    return await Caller(broker, await enrolled(broker.ports, "acme", name, agents=("agent",))).exchange()


async def read(caller: Caller) -> tuple[int, str | None]:
    """Status and code of a read."""
    answer = await caller.call("GET", "/v1/runs")
    return answer.status_code, answer.json().get("code")


async def test_who_reads_without_end_is_stopped_and_others_read_on(small: Broker) -> None:
    flooder, quiet = await small.agent(), await other(small, "quiet")
    spent = flooder.headers("GET", "/v1/runs")
    assert (await small.send("GET", "/v1/runs", headers=spent)).status_code == 200
    assert [await read(flooder) for _ in range(SHARE - 1)] == (SHARE - 1) * [(200, None)]
    assert [await read(flooder) for _ in range(3)] == 3 * [(429, "budget_exhausted")]

    assert await read(quiet) == (200, None)
    # What it may not read it may still do: changes are remembered in the store.
    assert (await flooder.open())["epoch"] == 1
    # A replay is a replay, also of one who may send nothing new.
    again = await small.send("GET", "/v1/runs", headers=spent)
    assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")


async def test_a_workload_gets_no_second_share_by_more_keys(small: Broker) -> None:
    first = await small.agent()
    assert [await read(first) for _ in range(SHARE)] == SHARE * [(200, None)]

    second = await small.agent()
    assert second.dpop.jkt != first.dpop.jkt
    assert await read(second) == (429, "budget_exhausted")
    assert await read(await other(small, "quiet")) == (200, None)


async def test_its_share_comes_back_when_its_proofs_are_worthless(small: Broker) -> None:
    flooder = await small.agent()
    assert [(await read(flooder))[0] for _ in range(SHARE + 1)] == SHARE * [200] + [429]
    small.hand.clock.tick(900_001)
    await flooder.exchange()

    assert [(await read(flooder))[0] for _ in range(SHARE + 1)] == SHARE * [200] + [429]


async def test_no_flood_of_reads_shuts_the_door_for_tokens(small: Broker) -> None:
    """Many together can take all places for reads; whoever comes still gets a token, and can work with it."""
    for number in range(7):
        caller = await other(small, f"w{number}")
        while (await read(caller))[0] == 200:
            small.hand.clock.tick(1)
    newcomer = await other(small, "newcomer")

    assert await read(newcomer) == (429, "budget_exhausted")
    assert (await newcomer.open())["epoch"] == 1


async def test_who_exchanges_without_end_is_stopped_and_others_get_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "EXCHANGES_KEPT", 8 * SHARE)
    async with served(tmp_path, exchange_burst=1000) as broker:
        answers = []
        for _ in range(SHARE + 1):
            caller = Caller(broker, broker.agent_key, nonce=broker.nonces.current(broker.now_s))
            answers.append(await caller.post_form(caller.request().form(broker.now_s)))
        # Each takes two places, for the proof and for the assertion.
        assert [answer.status_code for answer in answers] == SHARE * [200] + [429]
        assert answers[-1].json()["error"] == "budget_exhausted"
        assert await read(await other(broker, "quiet")) == (200, None)
