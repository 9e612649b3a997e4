"""The log as it is published: tiles that never change, and proofs from them alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conformance.store.making import Chain
from logs import ORIGIN, signed_head
from stepgrant import merkle, tlog
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.ledger import public_log
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.store.sqlite import SqliteStore


async def test_every_leaf_is_proven_from_what_is_public_alone(sequencer: Sequencer, store: SqliteStore) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(300))
    await sequencer.round()
    head = await signed_head(sequencer)
    public = PublicLog(store, sequencer)
    fetched = {tile: await public.tile(tile.path) for tile in tlog.tiles_of(head.size)}
    assert None not in fetched.values()

    def read(node: merkle.Node) -> bytes:
        tile = tlog.tile_with(node, head.size)
        return tlog.node_in(node, tile, fetched[tile] or b"")

    assert merkle.tree_root(head.size, read) == head.root
    entries = await store.entries("acme", chain.run)
    for entry in entries[::37]:
        assert entry.leaf_index is not None
        proof = await public.inclusion(entry.leaf_index, head.size)
        assert proof == merkle.proof_of(merkle.inclusion_ranges(entry.leaf_index, head.size), read)
        leaf = merkle.leaf_hash((await store.log_leaves(entry.leaf_index, 1))[0])
        merkle.verify_inclusion(leaf, entry.leaf_index, head.size, proof, head.root)


async def test_tiles_are_the_same_bytes_for_ever(sequencer: Sequencer, store: SqliteStore) -> None:
    chain, public = Chain.of_run(), PublicLog(store, sequencer)
    await store.commit(chain.adds(200))
    await sequencer.round()
    partial = {path: await public.tile(path) for path in ("tile/0/000.p/200", "tile/entries/000.p/200")}
    assert all(partial.values())
    assert await public.tile("tile/0/000.p/201") is None
    assert await public.tile("tile/0/000") is None
    assert await public.tile("tile/entries/000") is None
    assert await public.tile("tile/1/000.p/1") is None
    await store.commit(chain.adds(100))
    await sequencer.round()
    assert {path: await public.tile(path) for path in partial} == partial
    assert await public.tile("tile/0/000") is not None
    assert await public.tile("tile/entries/000") is not None
    assert await public.tile("tile/1/000.p/1") is not None
    assert (await public.vkeys())[0].startswith(f"{ORIGIN}+")


async def test_a_damaged_tile_is_told_and_proves_nothing(
    sequencer: Sequencer, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit(Chain.of_run().adds(20))
    await sequencer.round()
    real = store.log_tiles

    async def cut(wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return {place: data[:-32] for place, data in (await real(wanted)).items()}

    monkeypatch.setattr(store, "log_tiles", cut)
    with pytest.raises(StoreUnavailable, match="the log is damaged"):
        await PublicLog(store, sequencer).inclusion(3, 20)


async def test_a_proof_for_each_entry_costs_no_more_hashing_than_the_tree(
    sequencer: Sequencer, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts of long runs ask for hundreds of proofs; hashing for each anew would hold up the event loop."""
    await store.commit(Chain.of_run().adds(600))
    await sequencer.round()
    head = await signed_head(sequencer)
    hashed = list[bytes]()

    def counted(left: bytes, right: bytes) -> bytes:
        hashed.append(left)
        return merkle.node_hash(left, right)

    monkeypatch.setattr(public_log, "node_hash", counted)
    wanted = [merkle.inclusion_ranges(index, head.size) for index in range(head.size)]
    proofs = await PublicLog(store, sequencer).proofs(wanted, head.size)
    for index, (leaf, proof) in enumerate(zip(await store.log_leaves(0, head.size), proofs, strict=True)):
        merkle.verify_inclusion(merkle.leaf_hash(leaf), index, head.size, proof, head.root)
    assert len(hashed) < head.size
