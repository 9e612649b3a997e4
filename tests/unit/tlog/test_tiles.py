"""Tiles: every node of a tree is found in the tile that is named for it, for every size."""

from __future__ import annotations

import functools
import random

import pytest

from stepgrant.merkle import Edge, Node, Range, leaf_hash, node_hash, nodes_of, subtree_root, tree_root
from stepgrant.tlog import Tile, TileInvalid, node_in, read_path, tile_with, tiles_of
from stepgrant.tlog.tiles import bundle, read_bundle

SIZE = 70_000


@functools.cache
def nodes() -> dict[Node, bytes]:
    """Of a tree of `SIZE` leaves; not made where the module is only collected."""
    return dict(Edge().append(leaf_hash(n.to_bytes(4, "big")) for n in range(SIZE))[1])


def tile_bytes(tile: Tile) -> bytes:
    """The tile, from nodes that were made another way."""
    level = 8 * (tile.level or 0)
    return b"".join(nodes()[Node(level, tile.number * 256 + at)] for at in range(tile.width))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, SIZE])
def test_root_of_a_tree_is_computed_from_its_tiles(size: int) -> None:
    stored = {tile.path: tile_bytes(tile) for tile in tiles_of(size)}

    def read(node: Node) -> bytes:
        tile = tile_with(node, size)
        return node_in(node, tile, stored[tile.path])

    assert tree_root(size, read) == subtree_root(Range(0, size), nodes().__getitem__)
    dice = random.Random(size)
    for _ in range(50):
        begin, end = sorted((dice.randrange(size + 1), dice.randrange(size + 1)))
        for node in nodes_of(Range(begin, end)):
            assert read(node) == nodes()[node]


def test_tiles_of_a_size() -> None:
    assert [tile.path for tile in tiles_of(0)] == []
    assert [tile.path for tile in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert [tile.path for tile in tiles_of(600)] == [
        "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(3, 999, 1), "tile/3/999.p/1"),
        (Tile(None, 1000, 255), "tile/entries/x001/000.p/255"),
    ],
)
def test_path_and_back(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert read_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/0000", "tile/0/x000/001", "tile/64/000", "tile/00/000", "tile/0/000.p/0",
        "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/001/000", "tile/0/000/", "/tile/0/000", "tile/x/000",
        "tile/0/000.p/257", "tile/-1/000", "tile/0/\u0660\u0660\u0660", "",
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(TileInvalid, match="bad_path"):
        read_path(path)


@pytest.mark.parametrize(("node", "size"), [(Node(0, 3), 3), (Node(1, 1), 3), (Node(8, 1), 511), (Node(9, 0), 511)])
def test_node_that_a_tree_has_not_is_refused(node: Node, size: int) -> None:
    with pytest.raises(TileInvalid, match="node_outside"):
        tile_with(node, size)


def test_tile_of_another_length_is_refused() -> None:
    tile = tile_with(Node(1, 0), 5)
    assert node_in(Node(1, 0), tile, tile_bytes(tile)) == node_hash(nodes()[Node(0, 0)], nodes()[Node(0, 1)])
    with pytest.raises(TileInvalid, match="tile_length"):
        node_in(Node(1, 0), tile, tile_bytes(tile)[:-1])


def test_bundle_and_back() -> None:
    entries = [b"", b"x" * 32, b"y" * 65_535]
    assert read_bundle(bundle(entries), 3) == entries
    for data, width in ((bundle(entries)[:-1], 3), (bundle(entries), 2), (b"\x00", 1), (b"\x00\x05abc", 1)):
        with pytest.raises(TileInvalid, match="tile_length"):
            read_bundle(data, width)
