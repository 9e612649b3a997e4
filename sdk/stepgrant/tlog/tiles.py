"""Tiles (C2SP tlog-tiles): a tree's hashes in files of 256, each final once it is full.

Tile (L, N) holds the hashes of level 8·L from number 256·N on. A partial tile (width below 256) is the ragged right
edge of one tree size. Everything between two levels of tiles is computed from the tile below.

`tile/entries/…` holds what is hashed: here the 32-byte hashes of entries, so a log gives nothing of a tenant away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stepgrant.merkle import HASH_BYTES, Node, node_hash
from stepgrant.tlog.errors import TileInvalid

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
_GROUP: Final = 1000
_LENGTH_BYTES: Final = 2
_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9]|[1-5][0-9]|6[0-3]|entries)/(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """`level` None: a bundle of entries. `width` counts its hashes (or entries), 1 to 256."""

    level: int | None
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`."""
        groups = [f"{self.number % _GROUP:03d}"]
        rest = self.number // _GROUP
        while rest:
            groups.append(f"x{rest % _GROUP:03d}")
            rest //= _GROUP
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        level = "entries" if self.level is None else str(self.level)
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def read_path(path: str) -> Tile:
    """Raises `TileInvalid` for what is not the one path of a tile."""
    found = _PATH.fullmatch(path)
    if found is not None:
        number = int(found["number"].replace("x", "").replace("/", ""))
        level = None if found["level"] == "entries" else int(found["level"])
        tile = Tile(level, number, int(found["width"] or WIDTH))
        if tile.path == path and tile.width <= WIDTH:
            return tile
    raise TileInvalid("not the path of a tile: tile/<level>/<number in groups of three>[.p/<width>]", reason="bad_path")


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of hashes of a tree of `size`, full ones and the ragged edge, level by level."""
    level = 0
    while size:
        full, rest = divmod(size, WIDTH)
        yield from (Tile(level, number) for number in range(full))
        if rest:
            yield Tile(level, full, rest)
        size, level = full, level + 1


def tile_with(node: Node, size: int) -> Tile:
    """The tile, of a tree of `size`, from which a complete node is computed. Raises `TileInvalid` if there is none."""
    level = node.level // HEIGHT
    first = node.number << (node.level - level * HEIGHT)
    number = first // WIDTH
    width = min(WIDTH, (size >> (level * HEIGHT)) - number * WIDTH)
    last = ((node.number + 1) << (node.level - level * HEIGHT)) - number * WIDTH
    if not 0 < last <= width:
        raise TileInvalid("the tree has no such node", reason="node_outside")
    return Tile(level, number, width)


def node_in(node: Node, tile: Tile, data: bytes) -> bytes:
    """The hash of a node from the tile that `tile_with` named. Raises `TileInvalid` for a tile of another length."""
    if len(data) != tile.width * HASH_BYTES:
        raise TileInvalid(f"{tile.path} has {len(data)} bytes, not {tile.width * HASH_BYTES}", reason="tile_length")
    below = node.level - HEIGHT * (tile.level or 0)
    first = (node.number << below) - tile.number * WIDTH
    hashes = [data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(first, first + (1 << below))]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def bundle(entries: Sequence[bytes]) -> bytes:
    """The body of an entries tile: each entry after its length (u16, big endian)."""
    return b"".join(len(one).to_bytes(_LENGTH_BYTES, "big") + one for one in entries)


def read_bundle(data: bytes, width: int) -> list[bytes]:
    """The entries of an entries tile. Raises `TileInvalid`."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin], "big")
        found.append(data[begin:at])
    if at != len(data) or len(found) != width:
        raise TileInvalid(f"the bundle does not hold {width} entries", reason="tile_length")
    return found
