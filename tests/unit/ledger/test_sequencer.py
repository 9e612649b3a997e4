"""The sequencer over a real store: what waits becomes leaves, and what is durable is signed, once."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from conformance.store.making import Chain, SetClock
from cosigners import Cosigners
from logs import ORIGIN, signed_head
from stepgrant import merkle, tlog
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.log import Growth
from stepgrant_broker.domain.ports import PublicKey
from stepgrant_broker.ledger import sequencer as sequencing
from stepgrant_broker.ledger.pacing import ALONE, BESIDE
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore


class SlowLog(SqliteStore):
    """A store whose appends are somebody else's: this one never gets to append."""

    async def log_append(self, growth: Growth) -> bool:
        return False


async def test_an_empty_log_has_no_head(sequencer: Sequencer, store: SqliteStore) -> None:
    assert await sequencer.round() == 0
    assert sequencer.counted is None
    assert await PublicLog(store, sequencer).head() is None
    assert store.log_commits == 1  # the log's name


async def test_entries_are_integrated_and_the_head_is_signed_once(sequencer: Sequencer, store: SqliteStore) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(3))
    assert await sequencer.round() == 3
    head = await signed_head(sequencer)
    edge, _ = merkle.Edge().append(merkle.leaf_hash(leaf) for leaf in await store.log_leaves(0, 9))
    assert (head.size, head.root) == (3, edge.root)

    before = store.log_commits
    assert await sequencer.round() == 0
    assert store.log_commits == before
    assert await signed_head(sequencer) == head


async def test_a_round_takes_many_batches(sequencer: Sequencer, store: SqliteStore) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(ALONE + 50))
    before = store.log_commits
    assert await sequencer.round() == ALONE + 50
    assert store.log_commits - before == 3  # two batches and the head
    assert (await signed_head(sequencer)).size == ALONE + 50


async def test_a_round_ends_in_time_with_a_head_and_says_that_more_waits(
    sequencer: Sequencer, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencing, "ROUND_S", 0.0)
    await store.commit(Chain.of_run().adds(ALONE + 50))
    monkeypatch.setattr(sequencing, "AT_LEAST", 1)
    for integrated, size, behind in ((ALONE, ALONE, True), (50, ALONE + 50, False), (0, ALONE + 50, False)):
        assert await sequencer.round() == integrated
        assert (await signed_head(sequencer)).size == size
        assert sequencer.behind is behind


class Fed(SqliteStore):
    """A store into which more comes while a batch is appended."""

    chain: Chain

    async def log_append(self, growth: Growth) -> bool:
        appended = await super().log_append(growth)
        await self.commit(self.chain.adds(2))
        return appended


@pytest.mark.usefixtures("store")
async def test_what_comes_during_a_round_is_left_for_the_next_one(signer: LocalSigner, tmp_path: Path) -> None:
    fed = Fed(tmp_path / "log.db", clock=SetClock())
    fed.chain = Chain.of_run()
    await fed.commit(fed.chain.adds(3))
    sequencer = Sequencer(fed, signer, SetClock(), ORIGIN)
    assert [await sequencer.round() for _ in range(3)] == [3, 2, 2]
    assert not sequencer.behind
    await fed.close()


class Busy(SqliteStore):
    """A store in which others commit all the time. `batches`: the leaves of each append."""

    batches: tuple[int, ...] = ()

    @property
    def commits(self) -> int:
        return next(self._others)

    _others = itertools.count()

    async def log_append(self, growth: Growth) -> bool:
        self.batches = (*self.batches, len(growth.leaves))
        return await super().log_append(growth)


async def test_beside_commits_of_others_batches_are_short(
    store: SqliteStore, signer: LocalSigner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencing, "ROUND_S", 0.0)  # as on the slowest machine: a round is never long enough
    await store.commit(Chain.of_run().adds(3 * BESIDE))
    busy = Busy(tmp_path / "log.db", clock=SetClock())
    await Sequencer(busy, signer, SetClock(), ORIGIN).round()
    assert busy.batches == (BESIDE,) * 3
    await busy.close()


async def test_another_process_goes_on_where_this_one_stopped(
    sequencer: Sequencer, store: SqliteStore, signer: LocalSigner
) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(5))
    await sequencer.round()
    first = await signed_head(sequencer)
    await store.commit(chain.adds(4))
    other = Sequencer(store, signer, SetClock(), ORIGIN)
    assert await other.round() == 4
    second = await signed_head(other)
    proof = await PublicLog(store, other).consistency(first.size, second.size)
    merkle.verify_consistency(first.size, second.size, proof, first.root, second.root)

    assert await sequencer.round() == 0
    assert await signed_head(sequencer) == second


async def test_nothing_is_signed_that_is_not_durable(store: SqliteStore, signer: LocalSigner, tmp_path: Path) -> None:
    await store.commit(Chain.of_run().adds(3))
    slow = SlowLog(tmp_path / "log.db", clock=SetClock())
    late = Sequencer(slow, signer, SetClock(), ORIGIN)
    assert await late.round() == 0
    assert late.counted is None
    assert await slow.log_published() is None
    await slow.close()


async def test_two_sequencers_make_one_log(store: SqliteStore, signer: LocalSigner, tmp_path: Path) -> None:
    beside = SqliteStore(tmp_path / "log.db", clock=SetClock())
    both = [Sequencer(one, signer, SetClock(), ORIGIN) for one in (store, beside)]
    chain, integrated = Chain.of_run(), 0
    for _ in range(10):
        await store.commit(chain.adds(7))
        integrated += sum(await asyncio.gather(*(one.round() for one in both)))
    assert integrated == 70
    assert len(set(await store.log_leaves(0, 100))) == 70
    heads = await store.log_published_after(0, 100)
    public = PublicLog(store, both[0])
    for older, newer in itertools.pairwise(heads):
        proof = await public.consistency(older.size, newer.size)
        merkle.verify_consistency(older.size, newer.size, proof, older.root, newer.root)
    await beside.close()


async def test_a_key_that_is_not_published_signs_nothing(store: SqliteStore, signer: LocalSigner) -> None:
    class Hiding(LocalSigner):
        async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
            return ()

    hiding = Hiding({"heads": signer._keys["heads"]})
    await store.commit(Chain.of_run().adds(1))
    with pytest.raises(SignerUnavailable, match="does not publish"):
        await Sequencer(store, hiding, SetClock(), ORIGIN).round()
    assert await store.log_published() is None


# ----------------------------------------------------------------------------------------------------------- witnesses


async def test_a_head_counts_when_its_witnesses_have_cosigned(
    store: SqliteStore, signer: LocalSigner, cosigners: Cosigners
) -> None:
    sequencer = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=cosigners)
    chain = Chain.of_run()
    await store.commit(chain.adds(2))
    await sequencer.round()
    first = await store.log_published()
    assert sequencer.counted == first

    cosigners.present = {"alice"}
    await store.commit(chain.adds(2))
    await sequencer.round()
    second = await store.log_published()
    assert second is not None
    assert second.size == 4
    assert b"alice" in second.note
    assert sequencer.counted == first
    assert await PublicLog(store, sequencer).head() == (first.note if first else None)

    cosigners.present = {"alice", "bob"}
    await sequencer.round()
    assert sequencer.counted is not None
    assert sequencer.counted.size == 4
    assert set(cosigners.policy.check(tlog.read_note(sequencer.counted.note))) == {"alice", "bob"}
    before = list(cosigners.seen)
    await sequencer.round()
    assert cosigners.seen == before


async def test_after_a_start_the_newest_head_that_counts_is_found_again(
    store: SqliteStore, signer: LocalSigner, cosigners: Cosigners
) -> None:
    chain = Chain.of_run()
    first = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=cosigners)
    await store.commit(chain.adds(2))
    await first.round()
    cosigners.present = set()
    for _ in range(3):
        await store.commit(chain.adds(1))
        await first.round()
    again = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=cosigners)
    await again.round()
    assert again.counted == first.counted
    assert again.counted is not None
    assert again.counted.size == 2


# ----------------------------------------------------------------------------------------------------- the public face
