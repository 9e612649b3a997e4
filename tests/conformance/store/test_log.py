"""The log's rows: appended whole or not at all, by whoever comes first, in the order of each run."""

from __future__ import annotations

import asyncio
import random

import pytest

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock
from notehands import ALICE, BOB, LOG, ORIGIN, Hand, head_of, signed
from stepgrant import tlog
from stepgrant.merkle import EMPTY_ROOT, Edge, leaf_hash
from stepgrant.tlog import tiles_of
from stepgrant_broker.domain.log import Growth, SignedHead, Tail, TreeHead
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.ledger.growing import TreeDamaged, edge_of, grow


async def filled(store: AnyStore, runs: int = 3, each: int = 4) -> list[Chain]:
    """A log with a name, and runs with entries."""
    await store.log_origin("broker.example/log")
    chains = [Chain.of_run() for _ in range(runs)]
    for _ in range(each):
        for chain in chains:
            await store.commit(chain.adds(1))
    return chains


async def integrated(store: AnyStore, batch: int) -> list[Growth]:
    """All that waits, in batches."""
    grown = []
    while (tail := await store.log_tail(batch)).leaves:
        growth = grow(tail, NOW)
        assert await store.log_append(growth)
        grown.append(growth)
    return grown


async def test_a_log_keeps_its_first_name(store: AnyStore) -> None:
    assert await store.log_origin("broker.example/log") == "broker.example/log"
    assert await store.log_origin("other.example/log") == "broker.example/log"
    assert await store.log_tail(10) == Tail(TreeHead(0, EMPTY_ROOT, 0))


@pytest.mark.parametrize("batch", [1, 5, 100])
async def test_entries_become_leaves_in_the_order_of_their_run(store: AnyStore, batch: int) -> None:
    chains = await filled(store)
    before, apart = store.commits, store.log_commits
    grown = await integrated(store, batch)

    assert (store.commits - before, store.log_commits - apart) == (0, len(grown))
    leaves = [leaf for growth in grown for leaf in growth.leaves]
    assert len(leaves) == 12
    for chain in chains:
        assert [leaf.seq for leaf in leaves if leaf.chain == chain.run] == [0, 1, 2, 3]
        stored = await store.entries("acme", chain.run)
        assert [entry.leaf_index for entry in stored] == [
            at for at, leaf in enumerate(leaves) if leaf.chain == chain.run
        ]
    assert await store.log_leaves(0, 100) == tuple(leaf.hash for leaf in leaves)
    assert await store.log_leaves(3, 2) == tuple(leaf.hash for leaf in leaves[3:5])
    edge, _ = Edge().append(leaf_hash(leaf.hash) for leaf in leaves)
    assert (await store.log_tail(1)).head == TreeHead(12, edge.root, NOW)


async def test_what_comes_later_continues_the_tree(store: AnyStore) -> None:
    """Over the borders of tiles: 600 leaves in batches of uneven sizes."""
    dice, hashes = random.Random(5), list[bytes]()
    chain = Chain.of_run()
    await store.log_origin("broker.example/log")
    for _ in range(12):
        await store.commit(chain.adds(50))
        for growth in await integrated(store, dice.randrange(20, 60)):
            hashes += [leaf.hash for leaf in growth.leaves]
    head = (await store.log_tail(1)).head
    edge, made = Edge().append(map(leaf_hash, hashes))
    nodes = dict(made)

    assert head == TreeHead(600, edge.root, NOW)
    places = {(tile.level or 0, tile.number): tile.width for tile in tiles_of(600)}
    stored = await store.log_tiles([*places, (0, 9), (3, 0)])
    assert {place: len(data) // 32 for place, data in stored.items()} == places
    for (level, number), data in stored.items():
        hashes_of = [nodes[8 * level, number * 256 + at] for at in range(len(data) // 32)]  # type: ignore[index]
        assert data == b"".join(hashes_of)
    assert [(level, number) for level, number in edge_of(600)] == [(0, 2), (1, 0)]


async def test_what_commits_late_is_not_passed_over(store: AnyStore) -> None:
    """Entries that are older than the newest head: written by a replica whose commit took its time."""
    await filled(store)
    assert await store.log_append(grow(await store.log_tail(100), NOW + 60_000))
    late = Chain.of_run()
    await store.commit(late.adds(2))
    placed = [(leaf.chain, leaf.seq) for growth in await integrated(store, 100) for leaf in growth.leaves]
    assert placed == [(late.run, 0), (late.run, 1)]


async def test_of_two_sequencers_one_appends(store: AnyStore) -> None:
    await filled(store)
    tail = await store.log_tail(100)
    first, second = grow(tail, NOW), grow(tail, NOW + 1)

    assert sorted(await asyncio.gather(store.log_append(first), store.log_append(second))) == [False, True]
    assert (await store.log_tail(100)).leaves == ()
    assert (await store.log_tail(100)).head.size == 12
    assert len(await store.log_leaves(0, 100)) == 12


async def test_an_append_that_comes_late_leaves_nothing(store: AnyStore, database: Database) -> None:
    await filled(store)
    late = grow(await store.log_tail(4), NOW)
    assert await store.log_append(grow(await store.log_tail(5), NOW))
    before = database.snapshot()

    assert await store.log_append(late) is False
    assert database.snapshot() == before


async def test_an_entry_has_one_place_for_ever(store: AnyStore, database: Database) -> None:
    """Leaves that have an index are no leaves that wait: whoever claims so leaves nothing."""
    await filled(store)
    first = grow(await store.log_tail(4), NOW)
    assert await store.log_append(first)
    tail = await store.log_tail(2)
    twice = grow(Tail(tail.head, tail.edge, (*tail.leaves, first.leaves[0])), NOW)
    before = database.snapshot()

    assert await store.log_append(twice) is False
    assert database.snapshot() == before


async def test_an_edge_that_is_not_the_heads_is_named(store: AnyStore) -> None:
    await filled(store)
    assert await store.log_append(grow(await store.log_tail(7), NOW))
    tail = await store.log_tail(5)
    (level, data), *_ = tail.edge.items()
    for wrong in (data[:-32], data[:-1] + bytes([data[-1] ^ 1]), data + bytes(32), b""):
        with pytest.raises(TreeDamaged):
            grow(Tail(tail.head, {level: wrong}, tail.leaves), NOW)


async def test_signed_heads_are_kept_and_gain_cosignatures(store: AnyStore) -> None:
    assert await store.log_published() is None
    heads = [SignedHead(size, bytes([size]) * 32, NOW + size, b"note %d" % size) for size in (3, 5, 9)]
    for head in heads:
        await store.log_publish(head)
    more = SignedHead(5, bytes([5]) * 32, NOW, b"note 5, cosigned")
    await store.log_publish(more)

    assert await store.log_published() == heads[2]
    five = await store.log_published(5)
    assert five is not None
    assert five.note == more.note
    assert five.ts == NOW + 5
    assert await store.log_published(4) is None
    assert [head.size for head in await store.log_published_after(3, 10)] == [5, 9]
    assert [head.size for head in await store.log_published_after(0, 1)] == [3]
    assert [head.size for head in await store.log_published_before(9, 10)] == [5, 3]


async def test_of_two_sequencers_neither_drops_what_the_other_had_signed(store: AnyStore) -> None:
    """Each has the head with other cosignatures than the other, and does not know of those."""
    text = head_of(3)

    def head(*hands: Hand, text: str = text, ts: int = NOW) -> SignedHead:
        return SignedHead(3, bytes(32), ts, signed(text, *hands))

    first = await store.log_publish(head(LOG, ALICE))
    assert first == await store.log_published(3)
    both = await store.log_publish(head(LOG, BOB, ts=NOW + 9))
    assert both == await store.log_published(3)
    assert both.ts == NOW
    assert set(tlog.read_note(both.note).verified([LOG.key, ALICE.key, BOB.key])) == {LOG.key, ALICE.key, BOB.key}
    assert len(tlog.read_note(both.note).signatures) == 3
    assert await store.log_publish(head(LOG)) == await store.log_publish(head(LOG, BOB, ALICE))

    # After a restore the same tree has another name, which none of these signed.
    renamed = head(LOG, text=text.replace(ORIGIN, f"{ORIGIN}/r1"))
    assert (await store.log_publish(renamed)).note == renamed.note


async def test_signatures_that_come_at_once_are_all_kept(database: Database, clock: SetClock, store: AnyStore) -> None:
    """On PostgreSQL nothing but the comparison in the statement keeps the two apart."""
    hands = [Hand(f"witness-{number}.example", tlog.COSIGNATURE) for number in range(12)]
    beside = database.open(clock)
    text = head_of(3)
    heads = [SignedHead(3, bytes(32), NOW, signed(text, LOG, hand)) for hand in hands]
    await asyncio.gather(*((store, beside)[at % 2].log_publish(head) for at, head in enumerate(heads)))
    await beside.close()
    kept = await store.log_published(3)
    assert kept is not None
    assert len(tlog.read_note(kept.note).verified([one.key for one in hands])) == 12


async def test_another_root_of_the_same_size_is_never_kept(store: AnyStore) -> None:
    head = SignedHead(3, b"r" * 32, NOW, b"note")
    await store.log_publish(head)
    with pytest.raises(VersionMoved, match="another root"):
        await store.log_publish(SignedHead(3, b"s" * 32, NOW, b"fork"))
    assert await store.log_published() == head


async def test_a_log_is_renamed_once(store: AnyStore) -> None:
    await store.log_origin("broker.example/log")
    for _ in range(2):
        await store.log_rename("broker.example/log", "broker.example/log/r1")
        assert await store.log_origin("broker.example/log") == "broker.example/log/r1"
    with pytest.raises(VersionMoved, match="third name"):
        await store.log_rename("broker.example/log", "broker.example/log/r2")
    assert await store.log_origin("x") == "broker.example/log/r1"


async def test_a_log_without_a_name_is_not_renamed(store: AnyStore) -> None:
    with pytest.raises(VersionMoved, match="third name"):
        await store.log_rename("broker.example/log", "broker.example/log/r1")


async def test_a_head_under_a_name_that_the_log_has_left_is_not_kept(store: AnyStore) -> None:
    """A process that did not see the restore goes on signing; what it signs must not come beside the new heads."""
    await store.log_origin("broker.example/log")
    head = SignedHead(3, b"r" * 32, NOW, b"note")
    await store.log_publish(head, "broker.example/log")
    await store.log_rename("broker.example/log", "broker.example/log/r1")
    late = SignedHead(4, b"s" * 32, NOW, b"late")
    with pytest.raises(VersionMoved, match="another name"):
        await store.log_publish(late, "broker.example/log")
    assert await store.log_published() == head
    await store.log_publish(late, "broker.example/log/r1")
    assert await store.log_published() == late
