"""Appending leaves to a tree that is kept as tiles (C2SP tlog-tiles): pure, from tail to growth.

Only the ragged tile of each level is needed, and of those only the *peaks*: the roots of the complete subtrees that the
tree is made of, largest first, one for each bit of its size (`merkle.nodes_of`). A leaf is hashed into the peaks; what
becomes complete on the way at the height of a tile is also a hash of the level above.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from stepgrant.merkle import EMPTY_ROOT, HASH_BYTES
from stepgrant.tlog import Tile
from stepgrant.tlog.tiles import HEIGHT, WIDTH
from stepgrant_broker.domain.log import Growth, Tail, TreeHead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FULL: Final = WIDTH * HASH_BYTES
PAIR: Final = 2 * HASH_BYTES


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


class Grower:
    """Appends to one tree, and remembers the peaks that it left, so that they are not hashed again each time."""

    def __init__(self) -> None:
        self._left: tuple[int, dict[tuple[int, int], bytes], list[bytes]] = (0, {}, [])

    def grow(self, tail: Tail, now: int) -> Growth:
        """The tree with the leaves that wait. `now` in milliseconds. Raises `TreeDamaged`."""
        size = tail.head.size
        tiles = {(level, number): tail.edge.get(level, b"") for level, number in edge_of(size)}
        left, edge, peaks = self._left
        # The very same bytes have the very same peaks, whoever wrote them.
        peaks = peaks.copy() if (size, tiles) == (left, edge) else peaks_of(tiles, size)
        if _root(peaks) != tail.head.root:
            raise TreeDamaged(f"the edge of the tree of {size} does not lead to its root")
        changed: dict[tuple[int, int], bytearray] = {}
        for leaf in tail.leaves:
            at, level, found = size, 0, sha256(b"\x00" + leaf.hash).digest()
            _put(tiles, changed, (0, at // WIDTH), found)
            while at & 1:
                at, level, found = at >> 1, level + 1, sha256(b"\x01" + peaks.pop() + found).digest()
                if level % HEIGHT == 0:
                    _put(tiles, changed, (level // HEIGHT, at // WIDTH), found)
            peaks.append(found)
            size += 1
        grown = {place: bytes(data) for place, data in changed.items()}
        tiles.update(grown)
        self._left = size, {place: tiles[place] for place in edge_of(size)}, peaks
        return Growth(tail.head, TreeHead(size, _root(peaks), max(now, tail.head.ts)), tail.leaves, grown)


def grow(tail: Tail, now: int) -> Growth:
    """As `Grower.grow`, for once."""
    return Grower().grow(tail, now)


def _put(
    tiles: Mapping[tuple[int, int], bytes],
    changed: dict[tuple[int, int], bytearray],
    place: tuple[int, int],
    found: bytes,
) -> None:
    """Put a hash at the end of a tile."""
    data = changed.get(place)
    if data is None:
        data = changed[place] = bytearray(tiles.get(place, b""))
    data += found


def peaks_of(tiles: Mapping[tuple[int, int], bytes], size: int) -> list[bytes]:
    """The peaks of the tree of `size` from its ragged tiles alone. Raises `TreeDamaged`."""
    found: list[bytes] = []
    for level, number in edge_of(size):
        width = (size >> HEIGHT * level) % WIDTH
        data = tiles.get((level, number), b"")
        if len(data) != width * HASH_BYTES:
            raise TreeDamaged(f"{Tile(level, number, width).path} of the tree of {size} has {len(data)} bytes")
        while data:
            if len(data) % PAIR:
                found.append(data[-HASH_BYTES:])
            whole = len(data) // PAIR * PAIR
            data = b"".join([sha256(b"\x01" + data[at : at + PAIR]).digest() for at in range(0, whole, PAIR)])
    return found[::-1]


def _root(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    *others, root = peaks
    for left in reversed(others):
        root = sha256(b"\x01" + left + root).digest()
    return root


def root_from(tiles: Mapping[tuple[int, int], bytes], size: int) -> bytes:
    """The root of the tree of `size` from its ragged tiles alone. Raises `TreeDamaged`."""
    return _root(peaks_of(tiles, size))
