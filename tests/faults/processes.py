"""Agents and the target as processes: started, killed, started again, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

FOLDER: Final = Path(__file__).parent
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


def environment(**more: str) -> dict[str, str]:
    """Of a child: nothing of the developer's settings, and the code under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(name for name in sys.path if name), **more}


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
        command = [sys.executable, str(FOLDER / "target.py"), self.url, broker, str(key), str(book), str(fd)]
        process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, pass_fds=(fd,))
        self.socket.close()
        try:
            yield Target(self.url, book)
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Start:
    """One life of an agent: how it ended, and what it had been told by then."""

    code: int
    told: list[Line]
    errors: str = field(repr=False)


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

    def spawn(self, kill: Kill | None = None) -> subprocess.Popen[str]:
        """Start it, and leave it to the caller."""
        names = {"STEPGRANT_URL": self.url, "STEPGRANT_WORKLOAD_KEY": str(self.workload_key)}
        killed = (kill or Kill()).environment
        return subprocess.Popen(
            [sys.executable, str(FOLDER / "agent.py"), self.face, self.key],
            env=environment(FAULTS_TARGET=self.target, **names, **killed),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def live(self, kill: Kill | None = None) -> Start:
        """Start it and wait for its end."""
        process = self.spawn(kill)
        try:
            output, errors = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\n(it did not end within {PATIENCE_S} s)"
        self.starts.append(Start(process.returncode, [json.loads(line) for line in output.splitlines()], errors))
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
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "puppet.py")],
            env=environment(**names, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> None:
        """Send a command and do not wait."""
        if self.process.stdin is not None:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()

    def answer(self) -> Line:
        """The next answer; nothing when it ended."""
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        return dict(json.loads(line)) if line else {}

    def do(self, command: str) -> Line:
        """Send a command and wait for its answer."""
        self.tell(command)
        return self.answer()

    def freeze(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
