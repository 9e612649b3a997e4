"""Heads are shown to witnesses beside integration; after a start the newest one that counts is looked for once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from conformance.store.making import Chain, SetClock
from cosigners import Cosigners
from fakes.wired import until
from logs import ORIGIN, copied
from stepgrant import tlog
from stepgrant_broker.api.metrics import Metrics
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.log import SignedHead
from stepgrant_broker.domain.restoring import StoreRolledBack
from stepgrant_broker.ledger import sequencer as sequencing
from stepgrant_broker.ledger.newest import HeadFile
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.sequencing import Sequencing

if TYPE_CHECKING:
    from stepgrant.tlog.policy import LogPolicy


class Thoughtful(Cosigners):
    """Witnesses that answer when they are let."""

    def __init__(self, names: Sequence[str], quorum: str, log: tlog.NoteKey) -> None:
        super().__init__(names, quorum, log)
        self.may_answer = asyncio.Event()

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> list[tlog.NoteSignature]:
        made = await super().cosign(head, note)
        await self.may_answer.wait()
        return made


@pytest.fixture
async def thoughtful(sequencer: Sequencer) -> Thoughtful:
    return Thoughtful(["alice"], "quorum alice", (await sequencer.keys())[0])


def counted(sequencer: Sequencer) -> int:
    return 0 if sequencer.counted is None else sequencer.counted.size


async def test_what_waits_for_its_place_does_not_wait_for_witnesses(
    store: SqliteStore, signer: LocalSigner, thoughtful: Thoughtful
) -> None:
    sequencer, chain = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=thoughtful), Chain.of_run()
    await store.commit(chain.adds(2))
    showing = asyncio.create_task(sequencer.round())
    await until(lambda: thoughtful.seen == [2])
    for _ in range(3):
        await store.commit(chain.adds(2))
        assert await sequencer.integrate() == 2
    assert counted(sequencer) == 0
    assert [head.size for head in await store.log_published_after(0, 9)] == [2, 4, 6, 8]

    thoughtful.may_answer.set()
    assert await showing == 2
    assert counted(sequencer) == 2
    await sequencer.show()
    assert counted(sequencer) == 8
    assert thoughtful.seen == [2, 8]


async def test_a_store_that_goes_back_behind_a_head_that_witnesses_look_at_is_signed_no_second_past(
    store: SqliteStore, signer: LocalSigner, thoughtful: Thoughtful, tmp_path: Path
) -> None:
    sequencer = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=thoughtful)
    back = copied(tmp_path)
    await store.commit(Chain.of_run().adds(4))
    showing = asyncio.create_task(sequencer.round())
    await until(lambda: thoughtful.seen == [4])
    back()
    await store.commit(Chain.of_run().adds(2))
    with pytest.raises(StoreRolledBack):
        await sequencer.integrate()
    assert await store.log_published_after(0, 9) == ()
    showing.cancel()
    await asyncio.gather(showing, return_exceptions=True)


@pytest.mark.parametrize("quorum", ["quorum alice", "group both all alice bob\nquorum both"])
async def test_into_a_store_that_went_back_while_witnesses_were_asked_nothing_is_published(
    store: SqliteStore, signer: LocalSigner, sequencer: Sequencer, tmp_path: Path, quorum: str
) -> None:
    counts, file = "both" not in quorum, HeadFile(tmp_path)
    thoughtful = Thoughtful(["alice", "bob"], quorum, (await sequencer.keys())[0])
    thoughtful.present = {"alice"}
    asking = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=thoughtful, outside=file)
    back = copied(tmp_path)
    await store.commit(Chain.of_run().adds(4))
    showing = asyncio.create_task(asking.round())
    await until(lambda: thoughtful.seen == [4])
    back()
    await store.commit(Chain.of_run().adds(2))
    thoughtful.may_answer.set()
    with pytest.raises(StoreRolledBack) as told:
        await showing
    assert told.value.more == {"size": 0, "known_size": 4}
    assert asking.rolled_back == told.value.detail
    assert await store.log_published_after(0, 9) == ()
    # What shows the loss stays: outside, if witnesses made it count, and here in any case.
    kept = file.read()
    assert (None if kept is None else kept.size) == (4 if counts else None)
    with pytest.raises(StoreRolledBack):
        await asking.integrate()
    assert await store.log_published_after(0, 9) == ()


async def test_the_brokers_rounds_leave_a_silent_witness_to_itself(
    store: SqliteStore, signer: LocalSigner, thoughtful: Thoughtful
) -> None:
    metrics = Metrics()
    sequencer, chain = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=thoughtful), Chain.of_run()
    rounds = Sequencing(sequencer, metrics, 600_000)
    for _ in range(3):
        await store.commit(chain.adds(2))
        assert await rounds.round() == 2
    await until(lambda: thoughtful.seen != [])
    assert "stepgrant_log_leaves_total 6" in metrics.text()
    assert "stepgrant_log_counted_size 0" in metrics.text()
    assert len(thoughtful.seen) == 1  # one at a time, and not once more in each round

    thoughtful.may_answer.set()
    await until(lambda: counted(sequencer) > 0)
    await until(lambda: rounds._showing is not None and rounds._showing.done())
    await rounds.round()
    await until(lambda: counted(sequencer) == 6)
    await rounds.stop()


async def test_a_witness_that_is_asked_when_the_broker_stops_is_not_waited_for(
    store: SqliteStore, signer: LocalSigner, thoughtful: Thoughtful
) -> None:
    rounds = Sequencing(Sequencer(store, signer, SetClock(), ORIGIN, witnesses=thoughtful), Metrics(), 600_000)
    await store.commit(Chain.of_run().adds(2))
    await rounds.round()
    await until(lambda: thoughtful.seen == [2])
    await rounds.stop()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "stepgrant-witnesses"] == []


class Unwilling(Cosigners):
    """Witnesses whose asking fails as nothing of theirs should."""

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> list[tlog.NoteSignature]:
        await super().cosign(head, note)
        raise StoreUnavailable("no proof")


async def test_what_fails_beside_the_rounds_is_told_by_the_next_one_which_integrates_all_the_same(
    store: SqliteStore, signer: LocalSigner, sequencer: Sequencer
) -> None:
    unwilling, metrics = Unwilling(["alice"], "quorum alice", (await sequencer.keys())[0]), Metrics()
    rounds = Sequencing(Sequencer(store, signer, SetClock(), ORIGIN, witnesses=unwilling), metrics, 600_000)
    chain = Chain.of_run()
    await store.commit(chain.adds(2))
    await rounds.round()
    await until(lambda: rounds._showing is not None and rounds._showing.done())
    await store.commit(chain.adds(2))
    with pytest.raises(StoreUnavailable, match="no proof"):
        await rounds.round()
    assert (await store.log_tail(1)).head.size == 4
    assert "stepgrant_log_leaves_total 4" in metrics.text()
    await rounds.stop()


# --------------------------------------------------------------------------------------------------------- looking back


class Noting:
    """A log policy, and in which threads notes were checked."""

    def __init__(self, policy: LogPolicy) -> None:
        self._policy = policy
        self.checked = 0
        self.threads: set[int] = set()

    def check(self, note: tlog.Note) -> Any:  # noqa: ANN401 - as the policy's own
        self.checked += 1
        self.threads.add(threading.get_ident())
        return self._policy.check(note)


class Older(SqliteStore):
    """A store that notes which older heads were asked for."""

    asked: list[int]

    async def log_published_before(self, size: int, limit: int) -> tuple[SignedHead, ...]:
        found = await super().log_published_before(size, limit)
        self.asked += [head.size for head in found]
        return found


async def grown(store: SqliteStore, sequencer: Sequencer, heads: int) -> None:
    chain = Chain.of_run()
    for _ in range(heads):
        await store.commit(chain.adds(1))
        await sequencer.round()


@pytest.mark.parametrize("counts", [True, False])
async def test_it_looks_back_once_some_heads_in_each_round_and_beside_the_event_loop(
    store: SqliteStore,
    signer: LocalSigner,
    cosigners: Cosigners,
    monkeypatch: pytest.MonkeyPatch,
    counts: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(sequencing, "LOOK_BACK", 2)
    store.__class__ = Older
    older = cast("Older", store)
    older.asked = []
    first = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=cosigners)
    if not counts:
        cosigners.present = set()
    await grown(store, first, 1)
    cosigners.present = {"alice"}
    await grown(store, first, 5)
    older.asked.clear()

    again = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=cosigners)
    noting = Noting(cosigners.policy)
    cosigners.policy = cast("Any", noting)
    for looked in ([5, 4], [5, 4, 3, 2]):
        await again.round()
        assert older.asked == looked
        assert again.counted is None
    await again.round()
    assert older.asked == [5, 4, 3, 2, 1]
    assert again.counted == (first.counted if counts else None)

    cosigned = noting.checked
    for _ in range(3):
        await again.round()
    assert older.asked == [5, 4, 3, 2, 1]
    assert noting.checked - cosigned <= 3 * 2  # the newest one, before and after the witnesses were asked
    assert threading.get_ident() not in noting.threads
