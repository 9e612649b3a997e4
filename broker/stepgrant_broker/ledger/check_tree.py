"""Rebuilding the tree: every entry's bytes against its leaf, every tile as anybody may read it, every head's root.

Rules:
* Two trees grow side by side, one from the entries' bytes, one from the public tiles. They are one as long as both say
  the same. Where they differ, the next root that was truly signed says which of them is the right one; so a changed
  entry is told from a changed tile, and one change is one finding.
* Every signed head must be the root of one of them at its size. All roots of one growing tree are consistent with each
  other (RFC 6962), so heads that pass are consistent one after the other.
* Leaves come in pages, and of the tree only its edge is kept: memory does not grow with the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stepgrant.merkle import HASH_BYTES, Edge, leaf_hash
from stepgrant.tlog.tiles import HEIGHT, WIDTH, Tile
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.check_columns import beside
from stepgrant_broker.ledger.findings import Code, Finding, Place

if TYPE_CHECKING:
    from stepgrant.merkle import Node
    from stepgrant_broker.domain.scanning import RawEntry
    from stepgrant_broker.ledger.findings import Progress
    from stepgrant_broker.ledger.readers import LogReader

MOST: Final = 200
"""So many differing leaves are named between two heads; then only their number is told."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A leaf whose entry and tile say different things. `entry` None: there is no entry."""

    index: int
    entry: RawEntry | None


@dataclass(slots=True)
class Upper:
    """The ragged tile of a level above 0: its hashes as the entries, and as the tiles below, give them."""

    number: int = 0
    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class Trees:
    """Both trees as far as they have grown. `end`: the size of the whole tree that is checked."""

    log: LogReader
    end: int
    progress: Progress
    by_entries: Edge = field(default_factory=Edge)
    by_tiles: Edge = field(default_factory=Edge)
    doubts: list[Doubt] = field(default_factory=list)
    more: int = 0
    known_good: int = 0
    uppers: dict[int, Upper] = field(default_factory=dict)
    _missing: int = -1
    _lacks: str = ""
    _read: tuple[tuple[int, int], bytes | None] = ((-1, -1), None)

    @property
    def size(self) -> int:
        """How many leaves both have."""
        return self.by_entries.size

    async def grow(self, candidates: Sequence[Sequence[RawEntry]]) -> list[Finding]:
        """The next leaves: for each the entries that claim it. They stay within one tile of level 0."""
        first = self.size
        tile = await self._tile(0, first // WIDTH)
        found: list[Finding] = []
        if tile is None and self._missing != first // WIDTH:
            self._missing = first // WIDTH
            found.append(Finding(Code.TILE_MISSING, findings.tile(0, self._missing), self._lacks))
        ours: list[bytes] = []
        theirs: list[bytes] = []
        for at, claims in enumerate(candidates, start=first):
            begin = at % WIDTH * HASH_BYTES
            shown = None if tile is None else tile[begin : begin + HASH_BYTES]
            entry = _claimed(claims, shown)
            found.extend(_twice(claims, entry, at))
            digest = b"" if entry is None else hashlib.sha256(entry.data).digest()
            made = leaf_hash(digest) if digest else None
            if made is None or (shown is not None and shown != made):
                self._doubt(at, entry)
            elif entry is not None:
                found.extend(beside(entry, digest))
            ours.append(made or shown or b"\x00" * HASH_BYTES)
            theirs.append(shown or ours[-1])
        await self._append(ours, theirs, found)
        self.progress.leaves += len(candidates)
        return found

    def _doubt(self, at: int, entry: RawEntry | None) -> None:
        if len(self.doubts) < MOST:
            self.doubts.append(Doubt(at, entry))
        else:
            self.more += 1

    async def _append(self, ours: Sequence[bytes], theirs: Sequence[bytes], found: list[Finding]) -> None:
        same = self.by_entries == self.by_tiles and ours == theirs
        self.by_entries, made = self.by_entries.append(ours)
        if same:
            self.by_tiles, shown = self.by_entries, made
        else:
            self.by_tiles, shown = self.by_tiles.append(theirs)
        for (node, one), (_, other) in zip(made, shown, strict=True):
            if node.level and node.level % HEIGHT == 0:
                await self._upper(node, one, other, found)

    async def _upper(self, node: Node, one: bytes, other: bytes, found: list[Finding]) -> None:
        level = node.level // HEIGHT
        upper = self.uppers.setdefault(level, Upper())
        upper.pairs.append((one, other))
        if len(upper.pairs) == WIDTH:
            found.extend(await self._compare(level, upper))
            self.uppers[level] = Upper(upper.number + 1)

    async def _compare(self, level: int, upper: Upper) -> list[Finding]:
        """A tile of a higher level against what lies below it."""
        if not upper.pairs:
            return []
        at = findings.tile(level, upper.number)
        tile = await self._tile(level, upper.number)
        if tile is None:
            return [Finding(Code.TILE_MISSING, at, self._lacks)]
        hashes = [tile[begin : begin + HASH_BYTES] for begin in range(0, len(tile), HASH_BYTES)]
        wrong = [n for n, (pair, one) in enumerate(zip(upper.pairs, hashes, strict=True)) if one not in pair]
        if not wrong:
            return []
        return [Finding(Code.TILE_CHANGED, at, f"{len(wrong)} of its hashes, from {wrong[0]} on, are not the tree's")]

    async def _tile(self, level: int, number: int) -> bytes | None:
        """The tile as wide as it is in the tree that is checked; None for one that is missing or of another length."""
        if self._read[0] == (level, number):
            return self._read[1]
        width = min(WIDTH, (self.end >> (HEIGHT * level)) - number * WIDTH)
        data = await self.log.tile(Tile(level, number, width).path)
        self.progress.tiles += 1
        if data is not None and len(data) != width * HASH_BYTES:
            self._lacks, data = f"{len(data)} bytes are shown for it, not {width * HASH_BYTES}", None
        elif data is None:
            self._lacks = "nobody can read it"
        if level == 0:
            self._read = (level, number), data
        return data

    async def finish(self) -> list[Finding]:
        """The ragged tiles of the higher levels."""
        return [finding for level, upper in self.uppers.items() for finding in await self._compare(level, upper)]

    def judge(self, root: bytes, at: Place, code: Code, what: str) -> list[Finding]:
        """Compare with a root that somebody stands for; doubts so far are settled by it.

        If it is neither tree's, that is one finding (`code`, `at`); the doubts are then told as doubts about entries.
        """
        by_tiles, by_entries = root == self.by_tiles.root, root == self.by_entries.root
        found: list[Finding] = []
        if by_entries and not by_tiles:
            found += _changed_tiles([doubt.index for doubt in self.doubts if doubt.entry is not None])
            found += _changed_entries([doubt for doubt in self.doubts if doubt.entry is None], 0)
            self.by_tiles = self.by_entries
        else:
            found += _changed_entries(self.doubts, self.more)
            if by_tiles:
                self.by_entries = self.by_tiles
        if by_tiles or by_entries:
            self.known_good = self.size
        else:
            leaves = f"leaves {self.known_good} to {self.size - 1} are not those {what}"
            found.append(Finding(code, at, leaves))
        self.doubts, self.more = [], 0
        return found


def _claimed(claims: Sequence[RawEntry], shown: bytes | None) -> RawEntry | None:
    """Of the entries that claim a leaf, the one that the tile speaks of, else the first."""
    for entry in claims:
        if leaf_hash(hashlib.sha256(entry.data).digest()) == shown:
            return entry
    return claims[0] if claims else None


def _twice(claims: Sequence[RawEntry], right: RawEntry | None, at: int) -> Iterator[Finding]:
    for entry in claims:
        if entry is not right:
            place = findings.entry(entry.tenant, entry.run, entry.seq)
            yield Finding(Code.LEAF_TWICE, place, f"it claims leaf {at}, which is another entry's", entry.seq)


def _changed_entries(doubts: Sequence[Doubt], more: int) -> Iterator[Finding]:
    """Leaves without an entry, neighbours together, and entries that are not those that the tree was made of."""
    gaps: list[list[int]] = []
    for doubt in doubts:
        entry = doubt.entry
        if entry is not None:
            what = f"its bytes are not those that leaf {doubt.index} was made of"
            yield Finding(Code.ENTRY_CHANGED, findings.entry(entry.tenant, entry.run, entry.seq), what, entry.seq)
        elif gaps and gaps[-1][1] == doubt.index - 1:
            gaps[-1][1] = doubt.index
        else:
            gaps.append([doubt.index, doubt.index])
    for first, last in gaps:
        what = f"there is no entry for leaves {first} to {last}" if last > first else "there is no entry for this leaf"
        yield Finding(Code.LEAF_MISSING, findings.leaf(first), what)
    if more:
        yield Finding(Code.LEAF_MISSING, findings.leaf(doubts[-1].index + 1), f"and {more} more leaves from here on")


def _changed_tiles(leaves: Sequence[int]) -> Iterator[Finding]:
    """The tiles that show other leaves than the signed ones."""
    tiles: dict[int, list[int]] = {}
    for index in leaves:
        tiles.setdefault(index // WIDTH, []).append(index)
    for number, indexes in tiles.items():
        what = f"{len(indexes)} of its leaves, from {indexes[0]} on, are not the entries'"
        yield Finding(Code.TILE_CHANGED, findings.tile(0, number), what)
