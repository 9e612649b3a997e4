"""The log as anybody may read it (C2SP tlog-tiles): the newest head that counts, tiles, and the log's own keys.

Everything here is hashes of hashes and signatures. A full tile never changes; a partial one is cut from what is stored,
at exactly the width that was asked for, so two answers to one path are always the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepgrant import merkle, tlog
from stepgrant.merkle import HASH_BYTES, node_hash
from stepgrant.tlog.tiles import HEIGHT, WIDTH, bundle
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.restoring import StoreRolledBack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stepgrant.merkle import Node, Range
    from stepgrant.tlog import Tile
    from stepgrant_broker.domain.log import LogStore, SignedHead
    from stepgrant_broker.ledger.sequencer import Sequencer


class PublicLog:
    """What the log's readers ask. All raise `StoreUnavailable`."""

    def __init__(self, store: LogStore, sequencer: Sequencer) -> None:
        self._store = store
        self._sequencer = sequencer

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._sequencer.origin

    @property
    def counted(self) -> SignedHead | None:
        """The newest signed head that counts, as far as this process knows."""
        return self._sequencer.counted

    async def continues(self) -> None:
        """Raises `StoreRolledBack` if the store did not continue, in the last round, what was seen of its log."""
        if self._sequencer.rolled_back is not None:
            raise StoreRolledBack(self._sequencer.rolled_back)

    async def catch_up(self) -> int:
        """Let the sequencer make a round now; how many leaves were integrated. Raises as `Sequencer.round`.

        To who asks for a receipt, a store that lost commits is one that cannot answer now.
        """
        try:
            return await self._sequencer.round()
        except StoreRolledBack as fault:
            raise StoreUnavailable(fault.detail) from None

    async def head(self) -> bytes | None:
        """The newest signed head that counts, as a signed note; None before the first one."""
        counted = self._sequencer.counted
        return None if counted is None else counted.note

    async def vkeys(self) -> list[str]:
        """The log's verifier keys, newest first, a line each. Raises `SignerUnavailable`."""
        return [key.vkey for key in await self._sequencer.keys()]

    async def tile(self, path: str) -> bytes | None:
        """The tile, or bundle of entries, at this path; None if the tree has none such (yet). Raises `TileInvalid`."""
        tile = tlog.read_path(path)
        if tile.level is None:
            leaves = await self._store.log_leaves(tile.number * WIDTH, tile.width)
            return bundle(leaves) if len(leaves) == tile.width else None
        place = (tile.level, tile.number)
        data = (await self._store.log_tiles([place])).get(place, b"")
        wanted = tile.width * HASH_BYTES
        return data[:wanted] if len(data) >= wanted else None

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The path of a leaf in the tree of this size."""
        return (await self.proofs([merkle.inclusion_ranges(index, size)], size))[0]

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that one tree is a beginning of another."""
        return (await self.proofs([merkle.consistency_ranges(old, new)], new))[0]

    async def proofs(self, wanted: Sequence[Sequence[Range]], size: int) -> list[list[bytes]]:
        """Several proofs out of one reading of tiles."""
        nodes = {node for ranges in wanted for one in ranges for node in merkle.nodes_of(one)}
        read = await _Nodes.of(self._store, nodes, size)
        return [merkle.proof_of(ranges, read.node) for ranges in wanted]


class _Nodes:
    """The nodes of a tree, from tiles that were read in one go. What a tile gives is computed once for all proofs."""

    def __init__(self, size: int, tiles: dict[tuple[int, int], bytes]) -> None:
        self._size = size
        self._tiles = tiles
        self._levels: dict[tuple[int, int], list[list[bytes]]] = {}

    @classmethod
    async def of(cls, store: LogStore, nodes: Iterable[Node], size: int) -> _Nodes:
        named = {(tile.level or 0, tile.number) for tile in (tlog.tile_with(node, size) for node in nodes)}
        return cls(size, dict(await store.log_tiles(sorted(named))))

    def node(self, node: Node) -> bytes:
        tile = tlog.tile_with(node, self._size)
        place = (tile.level or 0, tile.number)
        if place not in self._levels:
            self._levels[place] = self._computed(tile)
        above = node.level - HEIGHT * place[0]
        return self._levels[place][above][node.number - (tile.number * WIDTH >> above)]

    def _computed(self, tile: Tile) -> list[list[bytes]]:
        """The tile's hashes, and the complete nodes above them, level by level."""
        data = self._tiles.get((tile.level or 0, tile.number), b"")[: tile.width * HASH_BYTES]
        if len(data) != tile.width * HASH_BYTES:
            raise StoreUnavailable(f"the log is damaged: {tile.path} has {len(data)} bytes")
        levels = [[data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
        return levels
