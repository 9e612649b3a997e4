"""What a witness remembers of a log finds a database that was put back, also where nothing else was kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.putback import on_sqlite
from stepgrant import tlog
from stepgrant_broker.domain.restoring import StoreNotBehind, StoreRolledBack
from stepgrant_broker.wiring import Broker, prepare
from witnesses import Running, witness_here


class Watched:
    """An installation whose log one witness cosigns, and a copy of its database of before."""

    def __init__(self, folder: Path) -> None:
        self.place = on_sqlite(folder)
        self.policy = folder / "log.policy"
        self.folder = folder / "witness"
        self.seen = 0
        self.log: tlog.NoteKey | None = None

    async def live(self) -> None:
        await asyncio.to_thread(prepare, self.place.settings, create=True)
        async with self.place.beside() as broker:
            self.log = tlog.read_vkey((await broker.log.vkeys())[0])
        with witness_here(self.folder, self.log) as running:
            self.trust(running, self.log)
            for number in range(2):
                async with self.place.broker(log_policy_file=self.policy) as (broker, hand):
                    await hand.open(f"run-{number}")
                    self.seen = await counted(broker)
                if number == 0:
                    self.place.backup()
        self.place.put_back()
        self.kept.unlink()

    @property
    def kept(self) -> Path:
        return self.place.settings.newest_folder / "newest-head"

    def trust(self, running: Running, log: tlog.NoteKey) -> None:
        self.policy.write_text(f"log {log.vkey}\nwitness w {running.key.vkey} {running.url}\nquorum w\n")

    async def refused(self) -> StoreRolledBack:
        with pytest.raises(StoreRolledBack) as error:
            async with self.place.broker(log_policy_file=self.policy):
                pytest.fail("a broker started over a store that was rolled back")
        return error.value


async def counted(broker: Broker) -> int:
    """The size of the newest head that counts, after a round."""
    await broker.log.catch_up()
    head = broker.log.counted
    return 0 if head is None else head.size


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    watched = Watched(tmp_path_factory.mktemp("watched"))
    asyncio.run(watched.live())
    return watched


@pytest.fixture
def watched(lived: Watched, tmp_path: Path) -> Watched:
    made = Watched(tmp_path / "copy")
    made.place = lived.place.copied(tmp_path / "copy")
    made.seen, made.log = lived.seen, lived.log
    return made


async def test_a_witness_knows_more(watched: Watched) -> None:
    assert watched.log is not None
    with witness_here(watched.folder, watched.log) as running:
        watched.trust(running, watched.log)
        told = await watched.refused()
        assert told.more["known_size"] == watched.seen
        assert f"but witness w has seen {watched.seen}" in told.detail
        behind, done, vkey = await watched.place.restore(log_policy_file=watched.policy)
        assert (behind.origin, behind.known_size, done.runs) == (f"{watched.log.name}/r1", watched.seen, 1)

        # The witness does not know the log's new name: no head of it counts, and the last of before stays the newest.
        async with watched.place.broker(log_policy_file=watched.policy) as (broker, _):
            assert await counted(broker) <= behind.size
    new = tlog.read_vkey(vkey)
    with witness_here(watched.folder, watched.log, new) as running:
        watched.trust(running, new)
        async with watched.place.broker(log_policy_file=watched.policy) as (broker, _):
            assert await counted(broker) > behind.size
        with pytest.raises(StoreNotBehind):
            await watched.place.restore(log_policy_file=watched.policy)


async def test_a_witness_remembers_another_past(watched: Watched) -> None:
    """A fork that is longer than what it cosigned."""
    async with watched.place.broker() as (broker, hand):
        for number in range(8):
            await hand.open(f"theirs-{number}")
        assert await counted(broker) > watched.seen
    watched.kept.unlink()
    assert watched.log is not None
    with witness_here(watched.folder, watched.log) as running:
        watched.trust(running, watched.log)
        told = await watched.refused()
    assert f"the first {watched.seen} of its" in told.detail
    assert "are not those that witness w has seen" in told.detail


async def test_a_database_that_is_empty_is_behind(watched: Watched) -> None:
    """A new one under the old keys: the log's name and the witness's memory are what is left."""
    for path in watched.place.settings.data_dir.glob("stepgrant.db*"):
        path.unlink()
    watched.place.hand = None
    assert watched.log is not None
    with witness_here(watched.folder, watched.log) as running:
        watched.trust(running, watched.log)
        told = await watched.refused()
    assert f"its newest signed head has 0 entries, but witness w has seen {watched.seen}" in told.detail


async def test_a_witness_that_is_silent_or_new_stops_nobody(watched: Watched, tmp_path: Path) -> None:
    assert watched.log is not None
    with witness_here(tmp_path / "new", watched.log) as running:
        watched.trust(running, watched.log)
        async with watched.place.broker(log_policy_file=watched.policy) as (broker, _):
            first = await counted(broker)
            assert first > 0
    async with watched.place.broker(log_policy_file=watched.policy) as (broker, hand):
        await hand.open("alone")
        assert await counted(broker) == first
