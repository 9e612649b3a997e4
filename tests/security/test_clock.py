"""A clock that jumps: no lease and no credential lives on after its time, and no entry's time falls.

Within a process time never goes back, whatever the system's clock does. A broker that starts again, or a replica, whose
clock is behind what the ledger recorded admits no agent and no resource server until it is right; people can still
stop everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepgrant
from fakes.hand import Hand, allow, hand
from faults.processes import SETTINGS
from stepgrant.errors import StaleEpoch
from stepgrant_broker.domain.errors import (
    AlreadyRedeemed,
    GrantExpired,
    GrantRevoked,
    StoreUnavailable,
)
from stepgrant_broker.domain.errors import StaleEpoch as Fenced
from stepgrant_broker.testing import start
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.wiring import SystemClock

NS: Final = 1_000_000
HOUR_MS: Final = 3_600_000
_runs = itertools.count()


@dataclass
class Machine:
    """A machine on which time passes, and whose wall clock somebody sets."""

    wall_ms: int = 1_800_000_000_000
    passed_ms: int = 0

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall_ms * NS, lambda: self.passed_ms * NS)

    def wait(self, ms: int) -> None:
        self.wall_ms += ms
        self.passed_ms += ms

    def jump(self, ms: int) -> None:
        self.wall_ms += ms


@dataclass
class Told:
    """A run as its holder knows it, in time that really passed."""

    machine: Machine
    clock: SystemClock
    hand: Hand
    key: str = ""
    run: str = ""
    holder: str = ""
    renewed_at: int = 0
    grants: list[tuple[str, int, int]] = field(default_factory=list)

    async def start(self) -> None:
        number = next(_runs)
        self.key, self.holder = f"job-{number}", f"key-{number}"
        self.set_clock()
        self.run = (await self.hand.open(self.key, self.holder))["run"]
        self.renewed_at = self.machine.passed_ms

    def set_clock(self) -> None:
        """The hand's adapters see what a process on this machine would."""
        self.hand.clock.ms = self.clock.now()

    async def renews(self, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - an answer
        """A holder's call: what is accepted came within the lease."""
        age = self.machine.passed_ms - self.renewed_at
        try:
            answer = await call()
        except Fenced:
            return None
        assert age < self.hand.ports.limits.lease_ms, f"a lease lived for {age} ms"
        self.renewed_at = self.machine.passed_ms
        return answer

    async def beat(self) -> None:
        agent = self.hand.agent(self.holder)
        await self.renews(lambda: heartbeat(self.hand.ports, agent, self.run, 1, self.hand.request()))

    async def begin(self, ttl_s: int) -> None:
        step = f"s{len(self.grants)}"
        asked = allow(ttl=ttl_s)
        answer = await self.renews(lambda: self.hand.begin(self.run, step, asked, who=self.holder))
        if answer is not None:
            grant = answer["grant"]
            assert grant["expires_at"] - grant["issued_at"] <= 1000 * ttl_s
            assert answer["credential"]["expires_at"] == grant["expires_at"]
            self.grants.append((grant["jti"], ttl_s, self.machine.passed_ms))

    async def redeem(self) -> None:
        if not self.grants:
            return
        jti, ttl_s, issued_at = self.grants[-1]
        try:
            await self.hand.redeem(jti)
        except (GrantExpired, GrantRevoked, AlreadyRedeemed):
            return
        now = self.machine.passed_ms
        assert now - issued_at <= 1000 * ttl_s, f"a grant of {ttl_s} s was good after {now - issued_at} ms"
        assert now - self.renewed_at < self.hand.ports.limits.lease_ms, "a credential was good without a lease"


WAITS: Final = st.integers(0, 45_000)
JUMPS: Final = st.sampled_from([0, 0, 0, -HOUR_MS, -300_000, -30_000, 30_000, 300_000, HOUR_MS])
ACTS: Final = st.lists(
    st.tuples(WAITS, JUMPS, st.sampled_from(["beat", "begin 12", "begin 300", "redeem"])), min_size=3, max_size=12
)


class Stage:
    """One set of adapters for all examples, each of which has a run of its own; and a loop for them."""

    def __init__(self, runner: asyncio.Runner, held: Hand) -> None:
        self.runner = runner
        self.held = held


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        entered = hand(tmp_path_factory.mktemp("clock"))
        yield Stage(runner, runner.run(entered.__aenter__()))
        runner.run(entered.__aexit__(None, None, None))


@given(acts=ACTS)
def test_nothing_lives_longer_however_the_clock_is_set(stage: Stage, acts: list[tuple[int, int, str]]) -> None:
    stage.runner.run(play(stage.held, acts))


async def play(held: Hand, acts: list[tuple[int, int, str]]) -> None:
    machine = Machine()
    told = Told(machine, machine.clock(), held)
    await told.start()
    for waited, jumped, act in acts:
        machine.wait(waited)
        machine.jump(jumped)
        told.set_clock()
        verb, *ttl_s = act.split()
        await getattr(told, verb)(*map(int, ttl_s))
    machine.wait(held.ports.limits.lease_ms)
    told.set_clock()
    assert (await held.open(told.key, "a rival"))["epoch"] == 2, "a lease outlived its time"
    times = await times_of(held, told.run)
    assert times == sorted(times)


async def times_of(held: Hand, run: str | None) -> list[int]:
    return [json.loads(entry.data)["ts"] for entry in await held.ports.reads.entries("acme", run, limit=500)]


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Hand]:
    async with hand(tmp_path) as made:
        yield made


async def refused_all(held: Hand, run: str, jti: str) -> None:
    """Whatever an agent or a resource server asks for, and nothing is written."""
    before = await held.entries(run)

    async def beats() -> object:
        return await heartbeat(held.ports, held.agent(), run, 1, held.request())

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "heartbeat": beats,
        "begin": lambda: held.begin(run, "s2"),
        "complete": lambda: held.complete(run),
        "redeem": lambda: held.redeem(jti),
        "resume": lambda: held.open("job", "k2"),
    }
    for name, call in calls.items():
        with pytest.raises(StoreUnavailable, match=r"clock is \d+ s behind") as caught:
            await call()
        assert caught.value.retry_after_ms, name
    assert await held.entries(run) == before


async def test_a_broker_that_starts_again_in_the_past_admits_nobody(held: Hand) -> None:
    """Else a holder whose lease has 30 s to live would keep its run for another hour, and its credential too."""
    run = (await held.open())["run"]
    jti = (await held.begin(run))["grant"]["jti"]
    held.clock.ms -= HOUR_MS
    await refused_all(held, run, jti)

    held.clock.ms += HOUR_MS
    assert (await held.redeem(jti))["jti"] == jti
    assert (await held.complete(run))["state"] == "completed"


async def test_a_lease_that_was_renewed_without_an_entry_is_known_too(held: Hand) -> None:
    run = (await held.open())["run"]
    jti = (await held.begin(run))["grant"]["jti"]
    for _ in range(30):
        held.clock.ms += 20_000
        await heartbeat(held.ports, held.agent(), run, 1, held.request())
    held.clock.ms -= 300_000
    await refused_all(held, run, jti)


async def test_people_can_stop_a_run_whatever_the_clock_says(held: Hand) -> None:
    run = (await held.open())["run"]
    await held.begin(run)
    held.clock.ms -= HOUR_MS
    await quarantine(held.ports, held.operator, "run", run)
    assert (await held.entries(run))[-2:] == ["grant_revoked", "run_quarantined"]
    times = await times_of(held, run)
    assert times == sorted(times)


async def test_a_clock_that_is_behind_by_less_than_the_leeway_goes_on(held: Hand) -> None:
    """As between replicas. No entry's time falls."""
    run = (await held.open())["run"]
    held.clock.ms += 10_000
    await held.begin(run, "s1")
    held.clock.ms -= held.ports.limits.leeway_ms
    granted = (await held.begin(run, "s2"))["grant"]
    assert granted["expires_at"] - granted["issued_at"] <= 60_000
    times = await times_of(held, run)
    assert times == sorted(times)


class JumpingWall:
    """The system's wall clock, which somebody sets."""

    off_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.off_ns


def test_a_run_over_http_while_the_system_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real clock of a real broker, over a wall clock that is set back for an hour, and then forward."""
    wall = JumpingWall()
    tools = {"tools": {"pay": {"effect": "once"}}}
    with start(tmp_path, settings={**SETTINGS, "agents": {"agent": tools}}) as host:
        monkeypatch.setattr(host.clock, "_base", SystemClock(wall))
        key = host.enroll("agent", agents=["agent"])
        opened = partial(stepgrant.run, "job", agent="agent", url=host.url, workload_key=key)
        pay = stepgrant.tool(name="pay", effect="once", step_id="pay-{number}")(lambda number: number)
        with contextlib.suppress(StaleEpoch), opened() as first:
            assert pay(1) == 1
            wall.off_ns = -HOUR_MS * NS
            assert pay(2) == 2
            wall.off_ns = 40_000 * NS  # longer than a lease
            with pytest.raises(StaleEpoch):
                pay(3)
        with opened() as again:
            assert (again.id, again.epoch) == (first.id, 2)
            assert [pay(number) for number in (1, 2, 3)] == [1, 2, 3]
        times = [event.ts for event in host.entries(first.id)]
        assert times == sorted(times)
        assert times[-1] - times[0] < 60_000
        assert host.ledger_findings() == []
