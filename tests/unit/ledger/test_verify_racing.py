"""`ledger verify` beside a broker that works: what comes while it reads, or a moment later, is no finding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.store.making import NOW, Chain, SetClock
from logs import ORIGIN
from stepgrant import tlog
from stepgrant._keys import SecretKey
from stepgrant_broker.domain.log import SignedHead
from stepgrant_broker.ledger import check_log
from stepgrant_broker.ledger.findings import TREE, Code, Finding, Progress, head
from stepgrant_broker.ledger.growing import grow
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck, TheLog
from stepgrant_broker.ledger.witness import Witness
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store import schema
from stepgrant_broker.store.connecting import url_of
from stepgrant_broker.store.sqlite import SqliteStore

LOOKS = 50
"""More often than a check would look in the two seconds that it once gave the first head."""


class Watched(SqliteStore):
    """A store that tells of each look for the newest head."""

    looked: Callable[[int], Awaitable[None]] | None = None
    looks = 0

    async def log_published(self, size: int | None = None) -> SignedHead | None:
        self.looks += 1
        if self.looked is not None:
            await self.looked(self.looks)
        return await super().log_published(size)


@dataclass
class Racing:
    """A store with leaves, and a check of it. `clock` is the store's."""

    store: Watched
    clock: SetClock
    signer: LocalSigner

    def sequencer(self, store: SqliteStore | None = None) -> Sequencer:
        return Sequencer(store or self.store, self.signer, self.clock, ORIGIN)

    async def leaves(self, count: int = 3) -> None:
        """Entries with their place in the tree, and no head: as if the sequencer stood between the two."""
        await self.store.commit(Chain.of_run().adds(count))
        assert await self.store.log_append(grow(await self.store.log_tail(count), self.clock.now()))

    async def findings(self, policy: tlog.LogPolicy | None = None) -> tuple[list[Finding], Progress]:
        """What a check finds in the log."""
        log = TheLog(self.store, PublicLog(self.store, self.sequencer()), policy)
        check = LedgerCheck(self.store, self.store, log=log)
        return [one async for one in check._of_log()], check.progress


@pytest.fixture
async def racing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Racing]:
    monkeypatch.setattr(check_log, "PAUSE_S", 0)
    path, clock = tmp_path / "log.db", SetClock()
    schema.migrate(url_of(path))
    store = Watched(path, clock=clock)
    await store.log_origin(ORIGIN)
    yield Racing(store, clock, LocalSigner.open(tmp_path / "keys", create=True))
    await store.close()


async def test_the_first_head_of_a_log_is_waited_for(racing: Racing) -> None:
    await racing.leaves()

    async def sign(looks: int) -> None:
        if looks == LOOKS:
            racing.store.looked = None
            await racing.sequencer().round()

    racing.store.looked = sign
    found, progress = await racing.findings()
    assert [str(one) for one in found] == []
    assert racing.store.looks > LOOKS
    assert progress.unsigned == 0


@pytest.mark.parametrize("late_ms", [check_log.GRACE_MS, check_log.GRACE_MS * 1000])
async def test_a_head_that_had_its_time_and_did_not_come_is_missed_at_once(racing: Racing, late_ms: int) -> None:
    await racing.leaves()
    racing.clock.time = NOW + late_ms
    found, progress = await racing.findings()
    assert [(one.code, one.at) for one in found] == [(Code.HEAD_MISSING, TREE)]
    assert racing.store.looks < 5
    assert progress.unsigned == 3


@pytest.mark.parametrize("tree_ms", [0, 10**12])
async def test_a_tree_of_now_or_of_the_future_is_not_waited_for_for_ever(
    racing: Racing, monkeypatch: pytest.MonkeyPatch, tree_ms: int
) -> None:
    """Its time is in a column that nothing signs: a thief who deleted all heads could write any there."""
    monkeypatch.setattr(check_log, "GRACE_MS", 300)
    racing.clock.time = NOW + tree_ms
    await racing.leaves()
    racing.clock.time = NOW
    found, _ = await racing.findings()
    assert [(one.code, one.at) for one in found] == [(Code.HEAD_MISSING, TREE)]


async def test_an_empty_log_needs_no_head(racing: Racing) -> None:
    assert await racing.findings() == ([], Progress())
    assert racing.store.looks < 5


class OneWitness:
    """A sequencer's witness in this process."""

    def __init__(self, folder: Path, log: tlog.NoteKey) -> None:
        folder.mkdir(mode=0o700)
        self.witness = Witness("witness.example", SecretKey.generate("EdDSA"), [log], folder / "witness.db")
        self.policy = tlog.read_log_policy(f"log {log.vkey}\nwitness w {self.witness.key.vkey}\nquorum w\n")

    async def cosign(self, _: tlog.Head, note: tlog.Note) -> Sequence[tlog.NoteSignature]:
        """Its cosignature of the log's first head."""
        line = self.witness.add(tlog.AddCheckpoint(0, (), note.encoded()).encoded(), NOW // 1000)
        return tlog.note.read_signatures(line.decode())


async def test_the_first_cosignature_is_waited_for(racing: Racing, tmp_path: Path) -> None:
    await racing.leaves()
    (key,) = await racing.sequencer().keys()
    witness = OneWitness(tmp_path / "witness", key)
    await racing.sequencer().round()

    async def cosign(looks: int) -> None:
        if looks == LOOKS:
            racing.store.looked = None
            cosigning = Sequencer(racing.store, racing.signer, racing.clock, ORIGIN, witnesses=witness)
            await cosigning.round()

    racing.store.looked = cosign
    found, progress = await racing.findings(witness.policy)
    assert [str(one) for one in found] == []
    assert progress.counted == 3
    assert racing.store.looks > LOOKS
    witness.witness.close()


async def test_a_cosignature_that_had_its_time_is_missed_at_once(racing: Racing, tmp_path: Path) -> None:
    await racing.leaves()
    (key,) = await racing.sequencer().keys()
    witness = OneWitness(tmp_path / "witness", key)
    await racing.sequencer().round()
    racing.clock.time = NOW + check_log.GRACE_MS
    found, _ = await racing.findings(witness.policy)
    assert [(one.code, one.at) for one in found] == [(Code.QUORUM_MISSING, head(3))]
    assert racing.store.looks < 6
    witness.witness.close()


async def test_what_the_sequencer_does_while_a_check_begins_is_no_finding(racing: Racing) -> None:
    """The head that is shown is read first, then the signed one, then the tree: each is in the next one."""
    await racing.leaves()
    serving = racing.sequencer()
    await serving.round()
    work = Chain.of_run()

    async def more(_: int) -> None:
        racing.store.looked = None
        await racing.store.commit(work.adds(300))
        await serving.round()

    class Busy(PublicLog):
        async def head(self) -> bytes | None:
            await racing.store.commit(work.adds(300))
            await serving.round()
            racing.store.looked = more
            return await super().head()

    log = TheLog(racing.store, Busy(racing.store, serving))
    check = LedgerCheck(racing.store, racing.store, log=log)
    assert [str(one) async for one in check._of_log()] == []
    assert check.progress.leaves > 600


async def test_a_shown_head_of_a_larger_tree_is_a_rollback(racing: Racing, tmp_path: Path) -> None:
    """As when a database was put back under what its public address still shows."""
    await racing.leaves()
    serving = racing.sequencer()
    await serving.round()
    shown = serving.counted
    assert shown is not None
    size = shown.size
    schema.migrate(url_of(tmp_path / "older.db"))
    older = Watched(tmp_path / "older.db", clock=racing.clock)
    await older.log_origin(ORIGIN)
    behind = Racing(older, racing.clock, racing.signer)
    await behind.leaves(size - 1)
    await behind.sequencer().round()
    log = TheLog(older, PublicLog(older, serving))
    found = [one async for one in LedgerCheck(older, older, log=log)._of_log()]
    assert [(one.code, one.at) for one in found] == [(Code.ROLLED_BACK, head(size))]
    assert f"of a tree of {size} leaves, here are {size - 1}" in found[0].what
    await older.close()


async def test_nothing_is_found_while_a_sequencer_works(racing: Racing) -> None:
    serving, work, stop = racing.sequencer(), Chain.of_run(), asyncio.Event()

    async def works() -> None:
        while not stop.is_set():
            await racing.store.commit(work.adds(20))
            await serving.round()

    task = asyncio.create_task(works())
    try:
        for _ in range(10):
            log = TheLog(racing.store, PublicLog(racing.store, serving))
            check = LedgerCheck(racing.store, racing.store, log=log)
            assert [str(one) async for one in check._of_log()] == []
    finally:
        stop.set()
        await task
