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
from faults.forks import NO_TLS
from lateness import lateness_of_threads
from stepgrant_broker.testing import TestHost

AGENTS: Final = 8
STEPS: Final = 32
"""In each run: a begin reads its whole run, so that a load in a few long ones is mostly reading."""
ALLOWED: Final = "greet"
DENIED: Final = "send_money"
AGAIN: Final = frozenset({"prior_credential_live", "conflict"})
COMPLETED: Final = 4
"""One step in so many is completed: who loses what was acknowledged loses a begin as well as a completion."""
PATIENCE_S: Final = 60.0
BACK_S: Final = 2.0
"""So soon after a service is back the first call is served."""
LOGIN: Final = "look_up"
POLICY: Final = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := {"effect": "allow", "reasons": ["run"]} if startswith(input.action.tool, "stepgrant.run.")

decision := {"effect": "allow", "reasons": ["ok"], "grant": {"effect": "once"}} if input.action.tool == "greet"

decision := {"effect": "allow", "reasons": ["ok"], "grant": {
	"effect": "once",
	"issuer": "app-db",
	"ttl": 60,
	"params": {"role": "app-ro"},
}} if input.action.tool == "look_up"
"""
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
    """`begins` in all, by some agents with one run after the other. `tool_of`: what begin n of an agent is for."""

    host: TestHost
    begins: int
    tool_of: Callable[[int], str] = lambda number: DENIED if number % 4 == 3 else ALLOWED
    story: Story = field(default_factory=Story)
    runs: list[list[str]] = field(default_factory=list)
    working: Sequence[Any] = ()

    @property
    def share(self) -> int:
        """How many begins an agent makes."""
        return self.begins // AGENTS

    def start(self, stack: ExitStack) -> None:
        """Set the agents to work."""
        key = self.host.enroll("worker", agents=("my-agent",))
        clients = [stack.enter_context(httpx.Client(verify=NO_TLS, timeout=60, trust_env=False)) for _ in range(AGENTS)]
        agents = [RawAgent(self.host, key, client).exchange() for client in clients]
        self.runs = [
            [agent.open(f"run-{number}-{turn}")["run"] for turn in range(self.share // STEPS)]
            for number, agent in enumerate(agents)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(AGENTS))
        self.working = [pool.submit(self._work, agent, runs) for agent, runs in zip(agents, self.runs, strict=True)]

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

    def through(self, stack: ExitStack, *harms: tuple[Callable[[], object], Callable[[], object]]) -> list[float]:
        """Run the load, and at even distances do each harm for a second. Seconds from each mending to an answer."""
        backs = []
        self.start(stack)
        for number, (harm, mend) in enumerate(harms, 1):
            self.until(self.begins * number // (len(harms) + 1))
            harm()
            time.sleep(1.0)
            mend()
            backs.append(self._back_after(time.monotonic()))
        for one in self.working:
            one.result(10 * PATIENCE_S)
        return backs

    def _back_after(self, moment: float) -> float:
        """Seconds from the moment to the first answer after it, without those by which this machine was late."""
        end = time.monotonic() + PATIENCE_S
        with lateness_of_threads() as late:
            while not any(at > moment for at in self.story.served_at[-200:]):
                assert time.monotonic() < end, self.story
                time.sleep(0.005)
        return min(at for at in self.story.served_at if at > moment) - moment - late.seconds

    def _work(self, agent: RawAgent, runs: Sequence[str]) -> None:
        for number in range(self.share):
            tool, step, run = self.tool_of(number), f"s{number}", runs[number // STEPS]
            attempt = self._begin(agent, run, step, tool)
            if number % COMPLETED == 0:
                self._complete(agent, run, step, {"epoch": 1, "attempt": attempt, "result": number})

    def _begin(self, agent: RawAgent, run: str, step: str, tool: str) -> int:
        body = {"epoch": 1, "action": {"tool": tool, "args": {}, "resource": None}, "effect": "once"}
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
        story, tools = self.story, [self.tool_of(number) for number in range(self.share)]
        denied = AGENTS * tools.count(DENIED)
        assert story.wrong == []
        assert story.begun == {"run": AGENTS * self.share - denied, "denied": denied}
        assert set(story.credentials.values()) == {1}
        given = set()
        for runs in self.runs:
            events = [(run, event) for run in runs for event in self.host.entries(run)]
            done = Counter(event.step for _, event in events if event.type == "step_completed")
            assert done == {f"s{number}": 1 for number in range(0, self.share, COMPLETED)}
            prepared = Counter(
                event.step for _, event in events if event.type == "step_prepared" and event.attempt == 1
            )
            assert prepared == {f"s{number}": 1 for number in range(self.share)}
            given |= {f"{run}/{event.step}" for run, event in events if event.type == "grant_issued"}
        assert given == set(story.credentials)
        assert self.host.ledger_findings() == []
