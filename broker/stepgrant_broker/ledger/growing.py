"""Appending leaves to a tree that is kept as tiles (C2SP tlog-tiles): pure, from tail to growth.

Only the ragged tile of each level is needed. A tile that becomes full gives one hash to the level above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant.merkle import HASH_BYTES, leaf_hash, node_hash, tree_root
from stepgrant.tlog import node_in, tile_with
from stepgrant.tlog.tiles import HEIGHT, WIDTH
from stepgrant_broker.domain.log import Growth, Tail, TreeHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant.merkle import Node

FULL: Final = WIDTH * HASH_BYTES


class TreeDamaged(Exception):
    """The stored edge of the tree does not lead to its head: somebody else wrote it. Nothing is appended to it."""


def edge_of(size: int) -> list[tuple[int, int]]:
    """The ragged tiles of a tree, as (level, number), lowest level first."""
    found: list[tuple[int, int]] = []
    level = 0
    while size:
        if size % WIDTH:
            found.append((level, size // WIDTH))
        size, level = size // WIDTH, level + 1
    return found


def grow(tail: Tail, now: int) -> Growth:
    """The tree with the leaves that wait. `now` in milliseconds. Raises `TreeDamaged`."""
    size = tail.head.size
    tiles = {(level, number): tail.edge.get(level, b"") for level, number in edge_of(size)}
    if root_from(tiles, size) != tail.head.root:
        raise TreeDamaged(f"the edge of the tree of {size} does not lead to its root")
    changed: dict[tuple[int, int], bytes] = {}
    for leaf in tail.leaves:
        _add(tiles, changed, 0, size, leaf_hash(leaf.hash))
        size += 1
    after = TreeHead(size, root_from(tiles, size), max(now, tail.head.ts))
    return Growth(tail.head, after, tail.leaves, changed)


def _add(
    tiles: dict[tuple[int, int], bytes], changed: dict[tuple[int, int], bytes], level: int, at: int, found: bytes
) -> None:
    """Put a hash at place `at` of its level; a tile that it fills becomes a hash of the level above."""
    place = (level, at // WIDTH)
    tiles[place] = changed[place] = tiles.get(place, b"") + found
    if len(tiles[place]) == FULL:
        _add(tiles, changed, level + 1, at // WIDTH, _root_of_tile(tiles.pop(place)))


def _root_of_tile(data: bytes) -> bytes:
    hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
    for _ in range(HEIGHT):
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def root_from(tiles: Mapping[tuple[int, int], bytes], size: int) -> bytes:
    """The root of the tree of `size` from its ragged tiles alone."""

    def read(node: Node) -> bytes:
        tile = tile_with(node, size)
        data = tiles.get((tile.level or 0, tile.number), b"")
        if len(data) != tile.width * HASH_BYTES:
            raise TreeDamaged(f"{tile.path} of the tree of {size} has {len(data)} bytes")
        return node_in(node, tile, data)

    return tree_root(size, read)
