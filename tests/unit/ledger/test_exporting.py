"""Exporting the log: every entry once in its order, and after any interruption at least once, with no hole."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from conformance.store.making import NOW, Chain, SetClock
from stepgrant_broker.ledger.exporting import BEFORE_ALL, ExportRefused, Line, Sink, State, export
from stepgrant_broker.ledger.ocsf import event_of
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database

ORIGIN: Final = "broker.example/log"
COUNT: Final = 23
CHANGE: Final = "UPDATE entries SET data = CAST(replace(CAST(data AS TEXT), 'enforce', 'monitor') AS BLOB)"


def plain(fields: Any, data: bytes, *, position: int, digest: bytes) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A line that says only what has to be in each."""
    return {"position": position, "hash": digest.hex(), "type": fields["type"], "bytes": len(data)}


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, Sequencer, Chain]]:
    """A store with a log of `COUNT` entries."""
    path = tmp_path / "log.db"
    new_database(path)
    store = SqliteStore(path, clock=SetClock())
    await store.log_origin(ORIGIN)
    chain = Chain.of_run()
    await store.commit(chain.adds(COUNT))
    sequencer = Sequencer(store, LocalSigner.open(tmp_path / "keys", create=True), SetClock(NOW), ORIGIN)
    assert await sequencer.round() == COUNT
    yield store, sequencer, chain
    await store.close()


Log = tuple[SqliteStore, Sequencer, Chain]


async def run(store: SqliteStore, folder: Path, after: int = BEFORE_ALL, size: int = 5, line: Line = plain) -> int:
    """One export into `out`, with its state in `state`, as the command does it."""
    state = State(folder / "state", ORIGIN)
    kept = state.read()
    with Sink.at(folder / "out") as sink:
        return await export(store, line, sink, after if kept is None else kept, state=state, size=size)


def positions(folder: Path) -> list[int]:
    return [json.loads(line)["position"] for line in (folder / "out").read_bytes().splitlines()]


async def test_each_entry_once_in_the_order_of_the_log(log: Log, tmp_path: Path) -> None:
    store, sequencer, chain = log
    assert await run(store, tmp_path) == COUNT - 1
    assert positions(tmp_path) == list(range(COUNT))
    lines = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [bytes.fromhex(line["hash"]) for line in lines] == list(await store.log_leaves(0, COUNT))
    assert json.loads((tmp_path / "state").read_bytes()) == {"v": 1, "origin": ORIGIN, "position": COUNT - 1}

    assert await run(store, tmp_path) == COUNT - 1
    assert positions(tmp_path) == list(range(COUNT))
    await store.commit(chain.adds(4))
    assert await run(store, tmp_path) == COUNT - 1  # not in the log yet
    await sequencer.round()
    assert await run(store, tmp_path) == COUNT + 3
    assert positions(tmp_path) == list(range(COUNT + 4))


@pytest.mark.parametrize("after", [-1, 0, 4, COUNT - 2, COUNT - 1])
async def test_it_begins_behind_any_position(log: Log, tmp_path: Path, after: int) -> None:
    assert await run(log[0], tmp_path, after) == COUNT - 1
    assert positions(tmp_path) == list(range(after + 1, COUNT))


async def test_an_empty_log_is_exported_whole(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    new_database(path)
    store = SqliteStore(path, clock=SetClock())
    assert await run(store, tmp_path) == BEFORE_ALL
    assert (positions(tmp_path), (tmp_path / "state").exists()) == ([], False)
    await store.close()


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("at", range(5))
async def test_whatever_a_crash_cut_short_comes_again(log: Log, tmp_path: Path, at: int) -> None:
    """At a place of a batch: before it, within its lines, before they are synced, before the state, and behind it."""
    store, _, _ = log
    writes = itertools.count()

    class Dying(Sink):
        def write(self, lines: bytes) -> None:
            if next(writes) == 2:
                self._file.write(lines[: [0, 150, len(lines), len(lines), len(lines)][at]])
                self._file.flush()
                if at < 4:
                    raise Killed
            else:
                super().write(lines)

    class DyingState(State):
        def note(self, position: int) -> None:
            super().note(position)
            if at == 4 and position >= 14:
                raise Killed

    state = DyingState(tmp_path / "state", ORIGIN)
    with Dying.at(tmp_path / "out") as sink, pytest.raises(Killed):
        await export(store, plain, sink, BEFORE_ALL, state=state, size=5)
    assert State(tmp_path / "state", ORIGIN).read() == (14 if at == 4 else 9)
    assert await run(store, tmp_path) == COUNT - 1
    seen = positions(tmp_path)
    assert sorted(set(seen)) == list(range(COUNT))
    assert seen[-1] == COUNT - 1


async def test_nothing_is_noted_before_it_is_on_disk(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        order.append(Path(f"/proc/self/fd/{number}").resolve().name)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with Sink.at(tmp_path / "out") as sink:
        order.clear()
        await export(log[0], plain, sink, BEFORE_ALL, state=State(tmp_path / "state", ORIGIN), size=COUNT)
    assert order == ["out", "state.new", tmp_path.name]


@pytest.mark.parametrize("half", [b"", b"{", b'{"position": 4, "ha', b"x" * 200_000])
def test_half_a_line_is_taken_away(tmp_path: Path, half: bytes) -> None:
    whole = b'{"position": 0}\n{"position": 1}\n'
    for before in (b"", whole):
        (tmp_path / "out").write_bytes(before + half)
        with Sink.at(tmp_path / "out") as sink:
            sink.write(b"next\n")
        assert (tmp_path / "out").read_bytes() == before + b"next\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not the state"),
        (b"[]", "not the state"),
        (b'{"v": 1, "origin": "broker.example/log"}', "not the state"),
        (b'{"v": 2, "origin": "broker.example/log", "position": 3}', "this version"),
        (b'{"v": 1, "origin": "broker.example/log", "position": "3"}', "this version"),
        (b'{"v": 1, "origin": "broker.example/log", "position": true}', "this version"),
        (b'{"v": 1, "origin": "broker.example/log", "position": -2}', "this version"),
        (b'{"v": 1, "origin": "broker.example/log/r1", "position": 3}', "of the log 'broker.example/log/r1'"),
    ],
)
async def test_a_state_that_is_not_of_this_log_is_refused(log: Log, tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "state").write_bytes(text)
    with pytest.raises(ExportRefused, match=said):
        await run(log[0], tmp_path)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state").read_bytes() == text


async def test_a_log_that_became_shorter_is_refused(log: Log, tmp_path: Path) -> None:
    for after in (COUNT, COUNT + 100):
        with pytest.raises(ExportRefused, match=f"position {after} is behind the end of the log, which has {COUNT}"):
            await run(log[0], tmp_path, after)
    assert positions(tmp_path) == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (f"{CHANGE} WHERE leaf_index = 12", "position 12 is not the one that the log has there"),
        ("UPDATE entries SET leaf_index = NULL WHERE leaf_index = 12", "positions 10 to 14 are not all there"),
        ("DELETE FROM entries WHERE leaf_index = 12", "positions 10 to 14 are not all there"),
    ],
)
async def test_nothing_passes_an_entry_that_is_not_as_the_log_has_it(
    log: Log, tmp_path: Path, sql: str, said: str
) -> None:
    import sqlite3  # noqa: PLC0415

    with sqlite3.connect(tmp_path / "log.db") as db:
        assert db.execute(sql).rowcount == 1
    db.close()
    with pytest.raises(ExportRefused, match=said) as refused:
        await run(log[0], tmp_path)
    assert "stepgrant ledger verify" in str(refused.value)
    assert positions(tmp_path) == list(range(10))
    assert State(tmp_path / "state", ORIGIN).read() == 9


async def test_the_events_are_those_of_the_entries(log: Log, tmp_path: Path) -> None:
    await run(log[0], tmp_path, line=partial(event_of, origin=ORIGIN, product="0"))
    told = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [one["metadata"]["sequence"] for one in told] == list(range(COUNT))
    leaves = await log[0].log_leaves(0, COUNT)
    assert [hashlib.sha256(one["raw_data"].encode()).digest() for one in told] == list(leaves)
    assert (tmp_path / "out").read_bytes().isascii()
