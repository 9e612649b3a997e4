"""Thousands of begins through a whole broker over real HTTP, by agents that never give up, and what they were told.

An agent asks for what its policy allows and for what it denies in turn. After a refusal that says "try again" it asks
again as the SDK does: the same Idempotency-Key, and the statement that it received no credential.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from fakes.raw import RawAgent
from lateness import lateness_of_threads
from stepgrant_broker.testing import TestHost

AGENTS: Final = 8
ALLOWED: Final = "greet"
DENIED: Final = "send_money"
AGAIN: Final = frozenset({"prior_credential_live", "conflict"})
PATIENCE_S: Final = 60.0
_keys = itertools.count()


@dataclass
class Story:
    """What the agents were told. `wrong`: answers that policy did not give."""

    begun: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    served_at: list[float] = field(default_factory=list)
    credentials: Counter[str] = field(default_factory=Counter)
    logins: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        """Begins that were answered."""
        return sum(self.begun.values())

    def refuses(self, answer: httpx.Response) -> bool:
        """Whether the answer says "try again"; anything else but 200 is a failure."""
        code = answer.json().get("code") if answer.status_code != httpx.codes.OK else None
        if code is None:
            return False
        with self.lock:
            self.refused[code] += 1
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE or code in AGAIN, answer.text
        return True

    def hear(self, tool: str, step: str, answer: httpx.Response) -> int | None:
        """The attempt that was begun; `None` if it is to be asked again."""
        if self.refuses(answer):
            return None
        said = answer.json()
        with self.lock:
            self.begun[said["outcome"]] += 1
            self.served_at.append(time.monotonic())
            if "credential" in said:
                self.credentials[step] += 1
                self.logins.update(value for name, value in said["credential"]["fields"].items() if name == "username")
            if (said["outcome"] == "run") != (tool != DENIED) or ("credential" in said) != (tool != DENIED):
                self.wrong.append(f"{tool}: {said['outcome']}")
        return int(said.get("attempt", 1))


@dataclass
class Load:
    """`begins` in all, shared by some agents with a run each. `tool_of` says what begin number n of an agent is for."""

    host: TestHost
    begins: int
    effect: str = "once"
    tool_of: Callable[[int], str] = lambda number: DENIED if number % 4 == 3 else ALLOWED
    story: Story = field(default_factory=Story)
    runs: list[str] = field(default_factory=list)
    working: Sequence[Any] = ()

    @property
    def share(self) -> int:
        """How many begins an agent makes."""
        return self.begins // AGENTS

    def start(self, stack: ExitStack) -> None:
        """Set the agents to work."""
        key = self.host.enroll("worker", agents=("my-agent",))
        clients = [stack.enter_context(httpx.Client(timeout=60, trust_env=False)) for _ in range(AGENTS)]
        agents = [RawAgent(self.host, key, client).exchange() for client in clients]
        self.runs = [agent.open(f"run-{number}")["run"] for number, agent in enumerate(agents)]
        pool = stack.enter_context(ThreadPoolExecutor(AGENTS))
        self.working = [pool.submit(self._work, agent, run) for agent, run in zip(agents, self.runs, strict=True)]

    def until(self, count: int) -> None:
        """Wait for so many answers; whatever an agent met meanwhile is raised here."""
        known, end = -1, 0.0
        while (now := self.story.count) < count:
            if now > known:
                known, end = now, time.monotonic() + PATIENCE_S
            for one in self.working:
                if one.done():
                    one.result()
            assert time.monotonic() < end, self.story
            time.sleep(0.01)

    def back_after(self, moment: float) -> float:
        """Seconds from the moment to the first answer after it, without those by which this machine was late."""
        end = time.monotonic() + PATIENCE_S
        with lateness_of_threads() as late:
            while not any(at > moment for at in self.story.served_at[-200:]):
                assert time.monotonic() < end, self.story
                time.sleep(0.005)
        return min(at for at in self.story.served_at if at > moment) - moment - late.seconds

    def finish(self) -> None:
        """Wait until all is done."""
        for one in self.working:
            one.result(10 * PATIENCE_S)

    def _work(self, agent: RawAgent, run: str) -> None:
        for number in range(self.share):
            tool, step = self.tool_of(number), f"s{number}"
            attempt = self._begin(agent, run, step, tool)
            if tool != DENIED:
                self._complete(agent, run, step, {"epoch": 1, "attempt": attempt, "result": number})

    def _begin(self, agent: RawAgent, run: str, step: str, tool: str) -> int:
        body = {"epoch": 1, "action": {"tool": tool, "args": {}, "resource": None}, "effect": self.effect}
        key = {"idempotency-key": f"load-{next(_keys)}"}
        while True:
            answer = agent.call("POST", f"/v1/runs/{run}/steps/{step}/begin", body, **key)
            attempt = self.story.hear(tool, f"{run}/{step}", answer)
            if attempt is not None:
                return attempt
            body["not_received"] = True
            time.sleep(0.05)

    def _complete(self, agent: RawAgent, run: str, step: str, body: dict[str, object]) -> None:
        key = {"idempotency-key": f"load-{next(_keys)}"}
        while self.story.refuses(agent.call("POST", f"/v1/runs/{run}/steps/{step}/complete", body, **key)):
            time.sleep(0.05)

    def check(self) -> None:
        """Nothing wrong was allowed, nothing acknowledged is lost, nothing happened twice."""
        story, share = self.story, self.share
        denied = sum(self.tool_of(number) == DENIED for number in range(share))
        assert story.wrong == []
        assert story.begun == {"run": AGENTS * (share - denied), "denied": AGENTS * denied}
        assert max(story.credentials.values()) == 1
        for run in self.runs:
            events = self.host.entries(run)
            done = Counter(event.step for event in events if event.type == "step_completed")
            assert len(done) == share - denied
            assert set(done.values()) == {1}
            prepared = Counter(event.step for event in events if event.type == "step_prepared" and event.attempt == 1)
            assert len(prepared) == share
            assert set(prepared.values()) == {1}
        assert self.host.ledger_findings() == []
