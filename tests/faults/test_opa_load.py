"""Two thousand begins through a whole broker while its OPA is killed, frozen and comes back.

Every agent asks for what its policy allows and for what it denies in turn, over real HTTP. Nothing is ever allowed that
should not be, whatever was answered stands in the ledger exactly once, and a refusal left nothing behind.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from fakes.raw import RawAgent
from opas import Serve, serving
from stepgrant_broker.policy.bundle import read_starter
from stepgrant_broker.testing import start

BEGINS = 2_048
AGENTS = 8
BACK_S = 2.0
ALLOWED, DENIED = "greet", "send_money"


@dataclass
class Story:
    """What the agents were told."""

    begun: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    served_at: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return sum(self.begun.values())

    def hear(self, tool: str, answer: httpx.Response) -> bool:
        """Whether it was answered; else it is to be asked again."""
        with self.lock:
            if answer.status_code == 503:
                self.refused[answer.json()["code"]] += 1
                return False
            assert answer.status_code == 200, answer.text
            outcome = answer.json()["outcome"]
            self.begun[outcome] += 1
            self.served_at.append(time.monotonic())
            if (outcome == "run") != (tool == ALLOWED) or ("credential" in answer.json()) != (tool == ALLOWED):
                self.wrong.append(f"{tool}: {outcome}")
            return True


def work(agent: RawAgent, run: str, story: Story, share: int) -> None:
    """Begin and complete one step after the other."""
    for number in range(share):
        tool = DENIED if number % 4 == 3 else ALLOWED
        body = {"epoch": 1, "action": {"tool": tool, "args": {}, "resource": None}, "effect": "read"}
        while not story.hear(tool, agent.call("POST", f"/v1/runs/{run}/steps/s{number}/begin", body)):
            time.sleep(0.05)
        if tool == ALLOWED:
            path = f"/v1/runs/{run}/steps/s{number}/complete"
            answer = agent.call("POST", path, {"epoch": 1, "attempt": 1, "result": number})
            assert answer.status_code == 200, answer.text


def until(story: Story, count: int) -> None:
    end = time.monotonic() + 60
    while story.count < count:
        assert time.monotonic() < end, story
        time.sleep(0.01)


def first_after(story: Story, moment: float) -> float:
    """Seconds from the moment to the first answer after it."""
    end = time.monotonic() + 30
    while not any(at > moment for at in story.served_at[-200:]):
        assert time.monotonic() < end, story
        time.sleep(0.005)
    return min(at for at in story.served_at if at > moment) - moment


@pytest.mark.timeout(240)
def test_opa_goes_and_comes_back_during_two_thousand_begins(opa_server: Serve, tmp_path: Path) -> None:
    story, backs = Story(), []
    with ExitStack() as stack:
        opa = stack.enter_context(serving(opa_server, read_starter(), tmp_path))
        folder = tmp_path / "broker"
        host = stack.enter_context(start(folder, lease_s=300, policy_engine="opa", opa_url=opa.url, opa_timeout_ms=500))
        key = host.enroll("worker", agents=("my-agent",))
        clients = [stack.enter_context(httpx.Client(timeout=30, trust_env=False)) for _ in range(AGENTS)]
        agents = [RawAgent(host, key, client).exchange() for client in clients]
        runs = [agent.open(f"run-{number}")["run"] for number, agent in enumerate(agents)]
        pool = stack.enter_context(ThreadPoolExecutor(AGENTS))
        share = BEGINS // AGENTS
        working = [pool.submit(work, agent, run, story, share) for agent, run in zip(agents, runs, strict=True)]
        for at, harm, mend in ((0.25, opa.kill, opa.start), (0.5, opa.pause, opa.resume), (0.75, opa.stop, opa.start)):
            until(story, int(BEGINS * at))
            harm()
            time.sleep(1.0)
            mend()
            backs.append(first_after(story, time.monotonic()))
        for one in working:
            one.result(120)
        assert story.wrong == []
        assert story.begun == {"run": BEGINS * 3 // 4, "denied": BEGINS // 4}
        assert set(story.refused) == {"policy_unavailable"}
        assert max(backs) < BACK_S
        for run in runs:
            told = Counter(event.type for event in host.entries(run))
            assert told["step_completed"] == told["grant_issued"] == share - share // 4
            assert told["step_prepared"] == told["decision"] == share
        assert host.ledger_findings() == []
