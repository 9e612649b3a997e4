"""The broker's disk and database fail under a run: named refusals, nothing granted, nothing lost, and it goes on after.

The faults are real: a limit on the size of files, another process that holds the write lock, bytes that are
overwritten, a file that may not be written. The broker is a process, and mostly the same one serves again.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

import stepgrant
from faults import evidence
from faults.broker import REFUSED
from faults.nursery import Nursery, Scene, scene
from faults.processes import KILLED
from stepgrant.errors import BrokerUnavailable

SOON: Final = stepgrant.Timeouts(broker=2)
"""For what the broker must refuse."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture
def on(nursery: Nursery, tmp_path: Path) -> Iterator[Scene]:
    with scene(nursery, tmp_path, sweep_ms=600_000) as made:
        yield made


@dataclass
class Worker:
    """An agent in this process whose tool counts."""

    scene: Scene
    acted: list[int] = field(default_factory=list)
    run: Any = None

    def charge(self, number: int) -> None:
        """A `once` step of its own."""

        def card_charge(number: int) -> int:
            self.acted.append(number)
            return number

        stepgrant.tool(name="card.charge", effect="once", step_id="pay-{number}")(card_charge)(number)

    def refused(self, number: int) -> BrokerUnavailable:
        """The same, which the broker must refuse: the tool does not run."""
        caller = self.run._session._caller
        patient, caller.timeouts = caller.timeouts, SOON
        with pytest.raises(BrokerUnavailable) as caught:
            self.charge(number)
        caller.timeouts = patient
        assert (caught.value.code, caught.value.status) == ("ledger_unavailable", 503)
        assert caught.value.retry_after
        assert number not in self.acted
        return caught.value

    def told(self) -> list[tuple[str, str | None]]:
        """What is in the ledger on the disk."""
        left = evidence.of_run(self.scene.data, self.run.id)
        assert left.findings == ()
        return [(event.type, event.step) for event in left.entries]


@contextmanager
def working(on: Scene) -> Iterator[Worker]:
    worker = Worker(on)
    with stepgrant.run("job", agent="worker", url=on.url, workload_key=on.agent_key) as worker.run:
        yield worker


def granted(told: list[tuple[str, str | None]]) -> list[str | None]:
    return [step for kind, step in told if kind == "grant_issued"]


@contextmanager
def full_disk(pid: int, size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [64, 1024], ids=["and-under-the-log", "under-the-database"])
def test_a_full_disk(on: Scene, size: int) -> None:
    pid = on.broker()["up"]
    with working(on) as worker:
        worker.charge(1)
        before = worker.told()
        with full_disk(pid, size):
            assert "disk" in str(worker.refused(2))
            assert "disk" in str(worker.refused(2))
            assert httpx.get(f"{on.url}/v1/runs/{worker.run.id}", headers=as_operator(on)).status_code == 200
            assert worker.told() == before
        worker.charge(2)
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert on.nursery.end() == 0
    assert granted(worker.told()) == ["pay-1", "pay-2"]


def test_killed_while_its_disk_is_full(on: Scene) -> None:
    pid = on.broker()["up"]
    with working(on) as worker:
        worker.charge(1)
        before = worker.told()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        worker.refused(2)
        assert on.nursery.kill() == KILLED
        assert worker.told() == before
        on.broker()
        worker.charge(2)
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert granted(worker.told()) == ["pay-1", "pay-2"]


def as_operator(on: Scene) -> dict[str, str]:
    return {"Authorization": f"Bearer {on.operator}"}


def test_locked_by_another_process(on: Scene) -> None:
    """Somebody holds the write lock for longer than the broker waits for it; the SDK waits longer still."""
    on.broker()
    with working(on) as worker, ThreadPoolExecutor(1) as pool:
        worker.charge(1)
        before = worker.told()
        other = sqlite3.connect(on.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        charging = pool.submit(copy_context().run, worker.charge, 2)
        refused = until_logged(on, "unavailable", charging)
        assert (refused["code"], refused["route"]) == ("ledger_unavailable", "/v1/runs/{run}/steps/{step}/begin")
        assert worker.acted == [1]
        assert worker.told() == before
        assert httpx.get(f"{on.url}/v1/runs/{worker.run.id}", headers=as_operator(on)).status_code == 200
        other.execute("ROLLBACK")
        other.close()
        charging.result()
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert granted(worker.told()) == ["pay-1", "pay-2"]


def until_logged(on: Scene, event: str, working: Future[None]) -> dict[str, Any]:
    """The first line of the broker's log about this event, once it is there; a log gives no other sign."""
    while not working.done():
        for line in on.log.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            if said["event"] == event:
                return dict(said)
        time.sleep(0.05)
    raise AssertionError(f"no {event} in the log, and the work is done")


def test_a_damaged_database(on: Scene) -> None:
    """Everything but the first page is overwritten, and later restored from a copy, under one broker."""
    on.broker()
    with working(on) as worker:
        worker.charge(1)
        before = worker.told()
        with damaged(on):
            assert "damaged" in str(worker.refused(2))
            assert httpx.get(f"{on.url}/readyz").status_code == 503
        assert worker.told() == before
        worker.charge(2)
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert granted(worker.told()) == ["pay-1", "pay-2"]


def test_a_broker_does_not_start_on_a_damaged_database(on: Scene) -> None:
    on.broker()
    with working(on) as worker:
        worker.charge(1)
        assert on.nursery.end() == 0
        with damaged(on):
            assert on.broker() == {"ended": REFUSED}
            assert "the database file is damaged; stop the broker and restore it" in on.log.read_text()
        assert "up" in on.broker()
        worker.charge(2)
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert granted(worker.told()) == ["pay-1", "pay-2"]


@contextmanager
def damaged(on: Scene) -> Iterator[None]:
    other = sqlite3.connect(on.database, isolation_level=None)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()
    good = on.database.read_bytes()
    overwrite(on.database, good[:4096] + b"\xff" * (len(good) - 4096))
    try:
        yield
    finally:
        overwrite(on.database, good)


def overwrite(path: Path, data: bytes) -> None:
    """In place: it stays the same file."""
    with path.open("r+b") as file:
        file.write(data)


def test_a_database_that_may_not_be_written(on: Scene) -> None:
    """It is refused at the start; a broker that has it open already keeps what it has, as with every file."""
    on.database.chmod(0o400)
    assert on.broker(obey_modes=True) == {"ended": REFUSED}
    assert "cannot be written (Permission denied); check the owner and mode" in on.log.read_text()
    on.database.chmod(0o600)
    assert "up" in on.broker(obey_modes=True)
    with working(on) as worker:
        worker.charge(1)
        assert (worker.acted, worker.run.epoch) == ([1], 1)
    assert granted(worker.told()) == ["pay-1"]


def test_a_database_that_is_moved_away(on: Scene) -> None:
    """What would be written into a file without a name is refused, and comes back with the name."""
    on.broker()
    with working(on) as worker:
        worker.charge(1)
        away = on.data / "away"
        on.database.rename(away)
        assert "gone" in str(worker.refused(2))
        away.rename(on.database)
        worker.charge(2)
        assert (worker.acted, worker.run.epoch) == ([1, 2], 1)
    assert granted(worker.told()) == ["pay-1", "pay-2"]
