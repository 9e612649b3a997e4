"""Brokers that can be killed: the test's side of `broker.py`, and a stage with such a broker and a target."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from faults.forks import FOLDER, environment, talking
from faults.processes import PATIENCE_S, Agent, Line, Place, Target, settings_for
from stepgrant_broker.testing import start

QUICK: Final = {"redeem_window_ms": 1000, "leeway_ms": 200}
STRICT_S: Final = 5.0


class Nursery:
    """A process that forks one broker after the other. `events` has what it says, and what else a test puts there."""

    def __init__(self, **more: str) -> None:
        """`more`: environment for it and its brokers."""
        self._talk = talking(FOLDER / "broker.py", environment=environment(**more))
        self.events: queue.Queue[Line] = queue.Queue()
        self.pid: int | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._talk.stdout:
            self.events.put(json.loads(line))

    def expect(self, *names: str, patience_s: float = PATIENCE_S) -> Line:
        """The next event that has one of these members. Raises `queue.Empty` when none comes in time."""
        while True:
            event = self.events.get(timeout=patience_s)
            if "ended" in event:
                self.pid = None
            if not set(names).isdisjoint(event):
                return event

    def fork(self, order: dict[str, Any]) -> Line:
        """Start a broker: `{"up": pid}`, or `{"ended": code}` if it could not."""
        self._talk.stdin.write(json.dumps(order) + "\n")
        self._talk.stdin.flush()
        event = self.expect("up", "ended")
        self.pid = event.get("up")
        return event

    def signal(self, number: signal.Signals) -> None:
        """To the broker that runs."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL for the broker that runs; its exit code."""
        self.signal(signal.SIGKILL)
        return int(self.expect("ended")["ended"])

    def end(self) -> int:
        """End the broker that runs, gracefully; its exit code."""
        self.signal(signal.SIGTERM)
        return int(self.expect("ended")["ended"])

    def __enter__(self) -> Self:
        self.expect("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._talk.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._talk.process.wait(STRICT_S)
        self._talk.process.kill()
        self._thread.join(STRICT_S)
        self._talk.close()


@dataclass
class Scene:
    """A broker's data, its address, a nursery for it, and a target that knows it."""

    nursery: Nursery
    folder: Path
    url: str
    target: Target
    settings: dict[str, Any]
    agent_key: Path
    operator: str = field(repr=False)
    policy: dict[str, Any]

    @property
    def data(self) -> Path:
        """The broker's data folder."""
        return self.folder / "broker"

    @property
    def database(self) -> Path:
        """Its database file."""
        return self.data / "stepgrant.db"

    @property
    def log(self) -> Path:
        """What all its brokers logged, at level debug."""
        return self.folder / "log"

    def broker(self, failpoints: str = "", *, obey_modes: bool = False, **settings: Any) -> Line:  # noqa: ANN401
        """Start a broker on this data; what came of it."""
        return self.nursery.fork({
            "settings": {**self.settings, **settings},
            "policy": self.policy,
            "failpoints": failpoints,
            "log": str(self.log),
            "obey_modes": obey_modes,
        })  # fmt: skip

    def agent(self, key: str, face: str = "blocking") -> Agent:
        """An agent of this broker."""
        return Agent(key, self.url, self.agent_key, self.target.url, face)


@contextmanager
def scene(
    nursery: Nursery,
    folder: Path,
    *,
    tools: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401 - fields
) -> Iterator[Scene]:
    """Data with an agent, a target and a person enrolled; no broker runs yet, and none does afterwards.

    `tools` are more tools of the policy; `settings` more settings of the broker.
    """
    place = Place.free()
    policy = settings_for(place.url, tools)
    with start(folder / "broker", settings=policy) as host:
        target_key, agent_key = host.enroll("target", audiences=[place.url]), host.enroll("worker", agents=["worker"])
        operator = host.operator("Olga")
    with socket.socket() as reserved:
        # Bound but not listening: the broker can take it again and again, and nobody else can meanwhile.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
        url = f"http://127.0.0.1:{port}"
        given = {"data_dir": str(folder / "broker"), "port": port, "public_url": url, **QUICK, **settings}
        with place.target(url, target_key, folder / "book") as target:
            try:
                yield Scene(nursery, folder, url, target, given, agent_key, operator, policy)
            finally:
                if nursery.pid is not None:
                    nursery.end()
