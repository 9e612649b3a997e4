"""Wall clocks that jump while agents, brokers and the database run: half a minute, five minutes, an hour back.

No lease and no grant lives longer by it, no entry's time falls, and whoever's clock cannot be believed gets a refusal
with a name and leaves nothing. What a jump refuses goes on when the clock is right again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from checker.check import check
from checker.reading import read_lines
from faults.clocks import OffPostgres, WallClock
from faults.letters import OK, Post, Reply, Writer
from faults.processes import Line
from faults.sites import Site, site

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

LEASE_MS: Final = 8_000
TTL_MS: Final = 60_000
WINDOW_S: Final = 600
SOON_MS: Final = 20_000
DRIFT_MS: Final = 50
"""So far a broker's own clock may have moved from the wall clock since it started."""
HOUR: Final = 3_600
UNAVAILABLE: Final = "ledger_unavailable"


def broken(at: Site, *heard: Path) -> list[str]:
    evidence = at.evidence(*[read_lines(file) for file in heard])
    return [str(one) for one in check(replace(evidence, one_clock=False))]


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class Off:
    """A broker on SQLite whose machine has a clock of its own."""

    at: Site
    post: Post
    clock: WallClock


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Off]:
    folder = tmp_path_factory.mktemp("machine")
    clock = WallClock(folder)
    with (
        site(folder / "site", environments=[clock.environment], lease_ms=LEASE_MS, sweep_ms=600_000) as at,
        Post() as post,
    ):
        yield Off(at, post, clock)


# --------------------------------------------------------------------------------------------------------- the agent's


ACCEPTED: Final = {"answer": "accepted"}
AGENTS: Final[dict[int, tuple[Line, str | None, str | None]]] = {
    -30: (ACCEPTED, None, None),
    30: (ACCEPTED, "invalid_dpop_proof", None),
    -300: (ACCEPTED, "invalid_dpop_proof", "invalid_client"),
    300: ({"refused": "invalid_client"}, None, "invalid_client"),
    -HOUR: ({"refused": "invalid_dpop_proof"}, None, "invalid_dpop_proof"),
}
"""By how much the agent's clock is off: what its broker says to a call, its target to a request (`None`: done), and the
broker to a new run (`None`: opened). A target allows less than a broker, whose nonce says how old a proof is."""


@pytest.mark.timeout(120)
def test_an_agents_clock(machine: Off, tmp_path: Path) -> None:
    at, clock = machine.at, WallClock(tmp_path)
    heard = [tmp_path / "heard-0", tmp_path / "heard-1"]
    with at.puppet(heard[0], **clock.environment) as agent, at.puppet(heard[1], **clock.environment) as fresh:
        for off, (call, present, opened) in AGENTS.items():
            run = str(agent.do(f"open off{off}")["run"])
            clock.set(off)
            assert agent.do("ask heartbeat") == call, off
            if call == ACCEPTED:
                assert agent.do("hold pay") == {"holding": "pay"}, off
                assert agent.do("present")["code"] == present, off
                assert agent.do("return") == {"returned": {"order": "0"}}, off
            else:
                assert agent.do("hold pay") == call, off
                assert [one.seq for one in at.evidence(run=run).entries if one.chain == run] == [0]
            assert fresh.do(f"open new-off{off}").get("refused") == opened, off
            clock.set(0)
            assert agent.do("ask heartbeat") == ACCEPTED, off
            assert agent.do("leave") == {"left": True}, off
            if opened is None:
                assert fresh.do("leave") == {"left": True}, off
    assert broken(at, *heard) == []


def test_the_window_of_a_proof_is_exact_to_a_second(machine: Off) -> None:
    """Each try counts only if no second began while it was under way."""
    wanted = {-WINDOW_S - 1: "invalid_dpop_proof", 1 - WINDOW_S: "", WINDOW_S: "", WINDOW_S + 1: "invalid_dpop_proof"}
    at, post = machine.at, machine.post
    agent = Writer(at.url, at.keys["worker"]).exchange(at.doors[0])
    opened = post.send(at.doors[0], agent.write("/v1/runs", {"agent": "worker", "run_key": "window"}))
    path = f"/v1/runs/{opened.members['run']}/heartbeat"
    found: dict[int, str] = {}
    end = time.monotonic() + 40
    while set(found) != set(wanted) and time.monotonic() < end:
        for off in set(wanted) - set(found):
            second = math.floor(time.time())
            reply = post.send(at.doors[0], agent.write(path, {"epoch": 1}, iat=second + off))
            if math.floor(time.time()) == second:
                found[off] = reply.code
    assert found == wanted


# ------------------------------------------------------------------------------------------------------- the broker's


@dataclass
class Held:
    """A run, its holder, and its lease as the holder was told of it."""

    at: Site
    post: Post
    key: str

    def __post_init__(self) -> None:
        self.holder = self.writer()
        self.number = 0
        opened = self.open(self.holder)
        assert opened.status == OK, opened
        self.run, self.until = str(opened.members["run"]), int(opened.members["lease_until"])

    def writer(self) -> Writer:
        return Writer(self.at.url, self.at.keys["worker"]).exchange(self.at.doors[0])

    def open(self, who: Writer, key: str = "") -> Reply:
        body = {"agent": "worker", "run_key": key or self.key}
        return self.post.send(self.at.doors[0], who.write("/v1/runs", body))

    def rival(self) -> str:
        """What another process gets that wants the run; its exchange may be refused already."""
        try:
            return self.open(self.writer()).code
        except RuntimeError as refused:
            return str(refused).partition('"error":"')[2].partition('"')[0]

    def beat(self) -> str:
        """A heartbeat's code; the lease that it is told of is as long as a lease, in true time."""
        reply = self.post.send(self.at.doors[0], self.holder.write(f"/v1/runs/{self.run}/heartbeat", {"epoch": 1}))
        if reply.status == OK:
            self.until = int(reply.members["lease_until"])
            assert self.until <= now_ms() + LEASE_MS + DRIFT_MS
        return reply.code

    def begin(self) -> str:
        """A begin's code; a grant lives no longer than policy says, from now, in true time."""
        self.number += 1
        action = {"tool": "card.charge", "args": {"order": str(self.number)}}
        path = f"/v1/runs/{self.run}/steps/pay-{self.number}/begin"
        reply = self.post.send(self.at.doors[0], self.holder.write(path, {"epoch": 1, "action": action}))
        if reply.status == OK:
            grant: dict[str, Any] = reply.members["grant"]
            assert grant["expires_at"] - grant["issued_at"] <= TTL_MS
            assert grant["expires_at"] <= now_ms() + TTL_MS + DRIFT_MS
            assert reply.members["credential"]["expires_at"] <= grant["expires_at"]
        return reply.code


@pytest.fixture
def off_broker(machine: Off) -> Iterator[Off]:
    """Its clock is right before a test and after one that passed, and so is its broker's."""
    yield machine
    assert broken(machine.at) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("off", [-30, -300, -HOUR])
def test_a_brokers_clock_that_is_set_back(off_broker: Off, off: int) -> None:
    """The process rides it out; its lease ends when it was said to. One that starts in the past admits nobody."""
    at, post, clock = off_broker.at, off_broker.post, off_broker.clock
    held = Held(at, post, f"back{off}")
    clock.set(off)
    assert (held.beat(), held.begin(), held.rival()) == ("", "", "lease_held")
    if off == -HOUR:
        while (code := held.rival()) == "lease_held":
            assert now_ms() < held.until + SOON_MS
            time.sleep(0.1)
        assert (code, now_ms() >= held.until) == ("", True)
        assert (held.beat(), held.begin()) == ("stale_epoch", "stale_epoch")

    before = len(at.evidence(run=held.run).entries)
    at.crash()
    assert held.rival() in {UNAVAILABLE, "invalid_client", "invalid_dpop_proof"}
    assert {held.beat(), held.begin()} <= {UNAVAILABLE, "invalid_token", "invalid_dpop_proof"}
    assert len(at.evidence(run=held.run).entries) == before
    clock.set(0)
    assert Held(at, post, f"after{off}").beat() == ""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("off", [30, 300])
def test_a_brokers_clock_that_is_set_forward(off_broker: Off, off: int) -> None:
    """All leases are over at once. What it records then is believed until its time has come: nobody is admitted."""
    at, post, clock = off_broker.at, off_broker.post, off_broker.clock
    held = Held(at, post, f"forward{off}")
    assert held.begin() == ""
    clock.set(off)
    assert (held.beat(), held.begin()) == ("stale_epoch", "stale_epoch")
    # The assertion of an agent whose clock is five minutes behind has run out.
    assert held.rival() == ("" if off == 30 else "invalid_client")
    clock.set(0)
    at.crash()
    if off == 30:
        assert (held.rival(), held.beat(), held.begin()) == (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE)
    assert Held(at, post, f"after{off}").beat() == ""


# ----------------------------------------------------------------------------------------------------- the database's


@pytest.fixture
def postgres(postgres_binaries: Path) -> Iterator[OffPostgres]:
    with OffPostgres(binaries=postgres_binaries, options={"fsync": "off"}) as server:
        yield server


@pytest.mark.timeout(180)
def test_a_databases_clock(tmp_path: Path, postgres: OffPostgres) -> None:
    """It is every broker's clock. Set back it admits nobody; set forward it ends all leases; then it must catch up."""
    database: PostgresServer = postgres
    url = database.create_database()
    with site(tmp_path / "site", database_url=url, lease_ms=LEASE_MS, sweep_ms=600_000) as at, Post() as post:
        for off in (-30, -300, -HOUR):
            held = Held(at, post, f"back{off}")
            assert held.begin() == ""
            before = len(at.evidence(run=held.run).entries)
            postgres.clock.set(off)
            assert [held.beat(), held.begin(), held.rival()] == [UNAVAILABLE] * 3
            assert held.open(held.writer(), f"new{off}").code == UNAVAILABLE
            assert len(at.evidence(run=held.run).entries) == before
            postgres.clock.set(0)
            assert held.beat() in {"", "stale_epoch"}
        for off, rival in ((30, ""), (300, "invalid_token")):
            held = Held(at, post, f"forward{off}")
            postgres.clock.set(off)
            assert (held.beat(), held.begin()) == ("stale_epoch", "stale_epoch")
            assert held.rival() == rival
            postgres.clock.set(0)
            assert held.beat() in ({UNAVAILABLE} if rival == "" else {"", "stale_epoch"})
        assert broken(at) == []
