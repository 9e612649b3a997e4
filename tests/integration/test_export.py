"""Exporting the log of a broker on PostgreSQL: killed in the middle and gone on with, no entry is missing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import stepgrant
from commandline import Done, caller
from faults.forks import spawned
from processes import COMMAND, PATIENCE_S, environment, started
from stepgrant_broker.testing import TestHost, start

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

pytestmark = pytest.mark.timeout(240)  # processes of their own may have to wait for a busy machine
POLICY: Final = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := {"effect": "allow", "reasons": ["listed"], "grant": {"effect": input.action.effect}} if {
	input.action.tool in {"export.note", "stepgrant.run.open"}
}
"""
Run = Callable[..., Done]
STEPS: Final = 30
PIECE: Final = 20_000
"""Less than a pipe holds, and than a batch has: an exporter whose reader stops there stands within a batch."""
MARKER: Final = "a-value-that-only-payloads-have"


@stepgrant.tool(name="export.note", effect="read", step_id="{n}")
def noted(n: int, text: str) -> str:
    """A tool that does nothing."""
    return f"{text} {n}"


class Exporting:
    """A broker on PostgreSQL, an agent of it, and the command line on its host."""

    def __init__(self, host: TestHost, url: str, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.env = {
            "STEPGRANT_BROKER_DATABASE_URL": url,
            "STEPGRANT_BROKER_DATA_DIR": str(host.settings.data_dir),
            "STEPGRANT_BROKER_PUBLIC_URL": host.url,
        }
        self.out, self.state = folder / "events.jsonl", folder / "events.state"

    def work(self, key: str, steps: int) -> int:
        """A run of so many steps; the size of the log then."""
        with stepgrant.run(key, agent="exporter", input={"text": MARKER}):
            for n in range(steps):
                noted(n, MARKER)
        self.host.call(lambda broker: broker.log.catch_up())
        counted = self.host.call(_counted)
        return int(counted)

    def words(self, *more: str) -> list[str]:
        return ["ledger", "export", "--state", str(self.state), *more]

    def noted(self) -> int:
        return int(json.loads(self.state.read_bytes())["position"]) if self.state.exists() else -1

    def until(self, position: int) -> None:
        """Wait for the export to have come so far."""
        end = time.monotonic() + PATIENCE_S
        while self.noted() < position:
            assert time.monotonic() < end, f"at {self.noted()}, not {position}"
            time.sleep(0.05)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_bytes().splitlines()]


async def _counted(broker: Any) -> int:  # noqa: ANN401 - a `Broker`
    head = broker.log.counted
    return 0 if head is None else head.size


@pytest.fixture
def exporting(postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporting]:
    url = postgres_server.create_database()
    with start(tmp_path / "broker", policy={"stepgrant/main.rego": POLICY}, database_url=url) as host:
        monkeypatch.setenv("STEPGRANT_URL", host.url)
        monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(host.enroll("exporter", agents=["exporter"])))
        yield Exporting(host, url, tmp_path)


@pytest.fixture
def run(
    exporting: Exporting, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:  # fmt: skip
    """A command line on the broker's host."""
    for name, value in exporting.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(exporting.folder)
    return caller(capsys, [postgres_server.password])


def test_no_entry_is_missing_after_kills(exporting: Exporting, run: Run) -> None:
    size = exporting.work("first", STEPS)
    read = killed_within_a_batch(exporting)
    assert exporting.noted() == -1  # nothing counts as arrived that was not given away whole
    assert 0 < len(read) < size

    more = exporting.words("--out", str(exporting.out))
    done = run(*more)
    assert (done.code, f"{size} events written" in done.out) == (0, True), done.err
    assert [one["metadata"]["sequence"] for one in exporting.events()] == list(range(size))

    follow = [*more, "--follow"]
    for key, how in (("second", signal.SIGKILL), ("third", signal.SIGTERM)):
        with started(exporting.folder, exporting.folder / f"{key}.log", *follow, **exporting.env) as process:
            size = exporting.work(key, 3)
            exporting.until(size - 1)
            process.process.send_signal(how)
            assert process.ended() == (0 if how is signal.SIGTERM else -how)
    told = exporting.events()
    positions = [one["metadata"]["sequence"] for one in told]
    assert sorted(set(positions)) == list(range(size))
    leaves = exporting.host.call(lambda broker: broker.store.log_leaves(0, size))
    hashes = {one["metadata"]["sequence"]: one["metadata"]["uid"] for one in told}
    assert hashes == {at: stepgrant.canonical.digest_bytes(told_raw) for at, told_raw in raw(told).items()}
    assert [stepgrant.canonical.b64u(leaf) for leaf in leaves] == [hashes[at][8:] for at in range(size)]
    assert MARKER not in exporting.out.read_text(encoding="utf-8")


def killed_within_a_batch(exporting: Exporting) -> list[bytes]:
    """Kill an export that stands within a batch, because nobody reads on; the whole lines that were read."""
    ours, theirs = os.pipe()
    given, folder = environment(**exporting.env), exporting.folder
    process = spawned(COMMAND, *exporting.words(), environment=given, stdout=theirs, folder=folder)
    os.close(theirs)
    with open(ours, "rb") as out:  # noqa: PTH123 - a descriptor
        data = out.read(PIECE)
        process.kill()
        process.wait(PATIENCE_S)
    assert len(data) == PIECE
    lines = data.split(b"\n")[:-1]
    assert [json.loads(line)["metadata"]["sequence"] for line in lines] == list(range(len(lines)))
    return lines


def raw(told: list[dict[str, Any]]) -> dict[int, bytes]:
    return {one["metadata"]["sequence"]: one["raw_data"].encode() for one in told}


REFUSALS: Final[dict[str, tuple[Callable[[Exporting], object], tuple[str, ...], str]]] = {
    "another log's state": (
        lambda one: one.state.write_text('{"v": 1, "origin": "other/log", "position": 3}'),
        (),
        "of the log 'other/log'",
    ),
    "behind the end": (lambda _: None, ("--after", "9999"), "behind the end of the log"),
    "no folder": (lambda _: None, ("--out", "nowhere/events"), "cannot be opened"),
}


def test_what_cannot_go_on_is_refused_in_a_line(exporting: Exporting, run: Run) -> None:
    size = exporting.work("only", 1)
    for name, (prepare, words, said) in REFUSALS.items():
        prepare(exporting)
        done = run(*exporting.words(*words))
        assert (done.code, done.out, said in done.err) == (1, "", True), name
        exporting.state.unlink(missing_ok=True)
    both = run(*exporting.words("--json"))
    assert (both.code, "--out" in both.err) == (2, True)
    told = run(*exporting.words("--json", "--out", str(exporting.out)))
    assert told.json == {"format": "ocsf", "exported": size, "position": size - 1}
