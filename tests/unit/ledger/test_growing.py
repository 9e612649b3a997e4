"""Appending to the tree: the tiles and roots of RFC 6962, whatever is remembered of the last batch."""

import random
from dataclasses import replace
from hashlib import sha256

import pytest

from stepgrant.merkle import EMPTY_ROOT, Edge, leaf_hash
from stepgrant.tlog.tiles import WIDTH
from stepgrant_broker.domain.log import Growth, Leaf, Tail, TreeHead
from stepgrant_broker.ledger.growing import Grower, TreeDamaged, edge_of, grow, root_from

SIZES = (1, 2, 3, 64, 255, 256, 257, 600)
NOW = 1_800_000_000_000


class Kept:
    """A tree as a store keeps it."""

    def __init__(self) -> None:
        self.head, self.tiles, self.hashes = TreeHead(), dict[tuple[int, int], bytes](), list[bytes]()
        self.edge = Edge()

    def tail(self, count: int) -> Tail:
        """Its end, and so many new leaves."""
        leaves = tuple(
            Leaf("acme", "run", at, sha256(b"%d" % at).digest()) for at in range(self.head.size, self.head.size + count)
        )
        return Tail(self.head, {level: self.tiles[level, number] for level, number in edge_of(self.head.size)}, leaves)

    def keep(self, growth: Growth) -> None:
        """What an append writes."""
        assert growth.before == self.head
        new = [leaf_hash(leaf.hash) for leaf in growth.leaves]
        self.hashes += new
        self.edge, _ = self.edge.append(new)
        self.head = growth.after
        self.tiles.update(growth.tiles)


def test_what_is_remembered_changes_nothing() -> None:
    rng, kept, grower = random.Random(9), Kept(), Grower()
    for _ in range(120):
        tail = kept.tail(rng.choice(SIZES))
        growth = grower.grow(tail, NOW)
        assert growth == grow(tail, NOW)
        # Some batches are lost to another sequencer: the tree is not where this one left it.
        if rng.random() < 0.8:
            kept.keep(growth)
            assert kept.head.root == kept.edge.root
    assert kept.head.root == Edge().append(kept.hashes)[0].root
    assert kept.head.size > WIDTH
    assert kept.tiles[0, 0] == b"".join(kept.hashes[:WIDTH])
    assert root_from({}, 0) == EMPTY_ROOT


@pytest.mark.parametrize("size", [5, 200, 300])
def test_an_edge_that_was_changed_since_is_not_appended_to(size: int) -> None:
    kept, grower = Kept(), Grower()
    kept.keep(grower.grow(kept.tail(size), NOW))
    tail = kept.tail(3)
    (level, data), *_ = tail.edge.items()
    for wrong in (data[:-32], data[:-1] + bytes([data[-1] ^ 1]), data + bytes(32), b""):
        with pytest.raises(TreeDamaged):
            grower.grow(replace(tail, edge={**tail.edge, level: wrong}), NOW)
    for other in (size - 1, size + 1, size + 2, size + 4):
        with pytest.raises(TreeDamaged):
            grower.grow(replace(tail, head=replace(tail.head, size=other)), NOW)
    with pytest.raises(TreeDamaged):
        grower.grow(replace(tail, head=replace(tail.head, root=bytes(32))), NOW)
    kept.keep(grower.grow(tail, NOW))
