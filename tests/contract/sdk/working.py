"""`stepgrant work` as processes of a test: started, watched line by line, killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fakes.world import person
from processes import Running, started
from shop import Shop
from stepgrant.testing import TestBroker
from stepgrant_broker.usecases.quarantine import release

TESTS = Path(__file__).parents[2]
PATIENCE_S = 90.0
QUICK = {"lease_s": 4, "sweep_ms": 50, "redeem_window_ms": 1000, "leeway_ms": 200}
"""A lease that outlives a machine which stands still for two seconds, as one that others share may."""


def until(true: Callable[[], object], what: str) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


@dataclass
class Worker:
    """One worker with what it has said so far."""

    running: Running

    def said(self, event: str, key: str | None = None) -> list[dict[str, Any]]:
        """Its lines of this kind, about this run."""
        lines = [json.loads(line) for line in self.running.text.splitlines() if line.startswith("{")]
        return [one for one in lines if one.get("event") == event and key in {None, one.get("run_key")}]

    def wait_for(self, event: str, key: str | None = None, times: int = 1) -> dict[str, Any]:
        """The newest of so many lines of this kind, once they are there."""
        end = time.monotonic() + PATIENCE_S
        while len(found := self.said(event, key)) < times:
            assert time.monotonic() < end, f"no {event} of {key}:\n{self.running.text}"
            assert self.running.process.poll() is None or len(self.said(event, key)) >= times, self.running.text
            time.sleep(0.02)
        return found[-1]

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.running.process.kill()
        self.running.ended()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """As a platform does."""
        self.running.process.send_signal(number)


class Works:
    """A broker, a shop, and workers of one workload."""

    def __init__(self, folder: Path, broker: TestBroker, shop: Shop) -> None:
        self.folder, self.broker, self.shop = folder, broker, shop
        self._count = 0

    def environment(self, key: Path | None = None) -> dict[str, str]:
        """What a worker finds in its environment."""
        return {
            "STEPGRANT_URL": self.broker.url,
            "STEPGRANT_WORKLOAD_KEY": str(key or self.broker.key_of("agent")),
            "WORKED_SHOP": self.shop.url,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
        }

    @contextmanager
    def worker(self, *words: str, target: str = "worked:bill", key: Path | None = None) -> Iterator[Worker]:
        """A worker, killed at the end if it still runs."""
        self._count += 1
        log = self.folder / f"worker-{self._count}.log"
        given = self.environment(key)
        with started(self.folder, log, "work", target, "--json", "--poll", "0.2", *words, **given) as running:
            worker = Worker(running)
            worker.wait_for("ready")
            yield worker

    def run(self, key: str) -> Any:  # noqa: ANN401 - the host's `Run`
        """The run with this key."""
        return next(run for run in self.broker.host.runs() if run.key == key)  # type: ignore[attr-defined]

    def state(self, key: str) -> tuple[str, str | None]:
        """State, and why it is parked."""
        run = self.run(key)
        return run.state.value, run.park_reason

    def is_completed(self, key: str) -> bool:
        """Whether it ended well."""
        return self.state(key)[0] == "completed"

    def release(self, run: str) -> None:
        """As an operator does."""
        olga = replace(person("olga", roles=("operator",)), tenant=self.run_by_id(run).tenant)
        self.broker.host.call(lambda broker: release(broker.ports, olga, "run", run))  # type: ignore[attr-defined]

    def run_by_id(self, run: str) -> Any:  # noqa: ANN401 - the host's `Run`
        """The run with this id."""
        return self.broker.host.run(run)  # type: ignore[attr-defined]

    def types(self, key: str) -> list[str]:
        """Its entries."""
        return [entry.type for entry in self.broker.entries(self.run(key).id)]
