"""Agents and the target as processes: started, killed, started again, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from faults.forks import FOLDER, environment, freeze, lived, spawned, talking

PATIENCE_S: Final = 45.0
STARTS_MOST: Final = 6
KILLED: Final = -signal.SIGKILL
ENDED: Final = 0

Line = dict[str, Any]

SETTINGS: Final[dict[str, Any]] = {
    "approval": {"groups": [], "quorum": 1, "answer_within": 86_400, "valid_for": 900},
    "flows": {},
    "resume": {"ask_after_parked_seconds": 86_400},
    "ttl": {"read": 60, "idempotent": 60, "once": 60},
}


def settings_for(target: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The starter policy's settings: the agent `worker` may use these tools at the target, and `more` tools."""
    effects = {"stock.read": "read", "note.put": "idempotent", "card.charge": "once", "mail.send": "once"}
    tools = {name: {"effect": effect, "audience": target} for name, effect in effects.items()}
    return {**SETTINGS, "agents": {"worker": {"tools": {**tools, **(more or {})}}}}


@dataclass(frozen=True)
class Target:
    """A running target: its address and its book."""

    url: str
    path: Path

    def book(self, run: str | None = None) -> list[Line]:
        """What it wrote down, all of it or about one run."""
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return lines if run is None else [line for line in lines if line.get("run") == run]


@dataclass(frozen=True)
class Place:
    """A target's address before it runs: its socket listens already, so nobody else can take it."""

    socket: socket.socket
    url: str

    @classmethod
    def free(cls) -> Place:
        made = socket.create_server(("127.0.0.1", 0), backlog=64)
        return cls(made, f"http://127.0.0.1:{made.getsockname()[1]}")

    @contextmanager
    def target(self, broker: str, key: Path, book: Path) -> Iterator[Target]:
        """Run a target here, known to the broker by this key file."""
        book.touch()
        fd = self.socket.fileno()
        words = (self.url, broker, str(key), str(book), str(fd))
        alive, ours = os.pipe()
        process = spawned(FOLDER / "target.py", *words, environment=environment(), stdin=alive, more=(fd,))
        self.socket.close()
        os.close(alive)
        try:
            yield Target(self.url, book)
        finally:
            os.close(ours)
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Start:
    """One life of an agent: how it ended, and what it had been told by then."""

    code: int
    told: list[Line]
    errors: str = field(repr=False)

    @classmethod
    def of(cls, program: Path, *words: str, **how: Any) -> Start:  # noqa: ANN401 - see `lived`
        """A life, when it is over."""
        code, output, errors = lived(program, *words, **how)
        return cls(code, [json.loads(line) for line in output.splitlines()], errors)


@dataclass(frozen=True)
class Kill:
    """Where an agent dies: at a failpoint of the SDK (`sdk.after_effect:kill:3`), or as `agent.DIE` says."""

    failpoint: str = ""
    die: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What makes it so."""
        if self.die:
            return {"FAULTS_DIE": self.die}
        return {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": self.failpoint} if self.failpoint else {}


@dataclass
class Agent:
    """One agent with one run, over all its lives."""

    key: str
    url: str
    workload_key: Path
    target: str
    face: str = "blocking"
    starts: list[Start] = field(default_factory=list)

    @property
    def told(self) -> list[Line]:
        """All that it was ever told."""
        return [line for start in self.starts for line in start.told]

    @property
    def run(self) -> str:
        """The broker's name of its run."""
        return next(str(line["run"]) for line in self.told if "run" in line)

    def live(self, kill: Kill | None = None) -> Start:
        """Start it and wait for its end."""
        names = {"STEPGRANT_URL": self.url, "STEPGRANT_WORKLOAD_KEY": str(self.workload_key)}
        given = environment(FAULTS_TARGET=self.target, **names, **(kill or Kill()).environment)
        self.starts.append(Start.of(FOLDER / "agent.py", self.face, self.key, environment=given, patience_s=PATIENCE_S))
        return self.starts[-1]

    def finish(self) -> Start:
        """Start it again, as a supervisor would, until it ends well; a few times at most."""
        while self.live().code != ENDED and len(self.starts) < STARTS_MOST:
            continue
        return self.starts[-1]

    def story(self) -> str:
        """Its lives, for a failure."""
        return "\n".join(
            f"start {number}: exit {start.code}; told {json.dumps(start.told)}\n{start.errors[-1500:]}"
            for number, start in enumerate(self.starts, 1)
        )


def report(broken: Sequence[str], agent: Agent, book: Sequence[Mapping[str, Any]]) -> str:
    """What a failure says."""
    lines = "\n".join(json.dumps(line) for line in book)
    return "\n".join(["broken:", *broken, "", agent.story(), "the target's book:", lines])


class Puppet:
    """The test's side of `puppet.py`."""

    def __init__(self, url: str, workload_key: Path, target: str, **more: str) -> None:
        names = {"STEPGRANT_URL": url, "STEPGRANT_WORKLOAD_KEY": str(workload_key), "FAULTS_TARGET": target}
        self._talk = talking(FOLDER / "puppet.py", environment=environment(**names, **more))

    def tell(self, command: str) -> None:
        """Send a command and do not wait."""
        self._talk.stdin.write(command + "\n")
        self._talk.stdin.flush()

    def answer(self) -> Line:
        """The next answer; nothing when it ended."""
        line = self._talk.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def do(self, command: str) -> Line:
        """Send a command and wait for its answer."""
        self.tell(command)
        return self.answer()

    def freeze(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        freeze(self._talk.process)

    def thaw(self) -> None:
        """SIGCONT."""
        self._talk.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._talk.close()
