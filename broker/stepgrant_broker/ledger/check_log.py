"""The log over all chains, checked from its first leaf to its last: entries, tiles, heads, and what others kept.

Rules:
* The tree is rebuilt through what anybody may read (`readers.LogReader`); only the entries themselves, whose hashes are
  its leaves, come from the store.
* What is shown and kept is read before the tree: a head above the tree's end is one of another tree, or of a later one.
* A head comes a moment after its leaves, and its cosignatures another one later; on a busy machine moments are long. So
  what is not there yet is waited for, as long as the tree is young (`GRACE_MS`), and never for longer, for nobody signs
  the tree's time.
* What cannot be found here: a store that was put back to an earlier state of itself, or replaced by another one of the
  same log key, as long as nobody shows a head that was kept elsewhere (`known`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stepgrant import tlog
from stepgrant.tlog.tiles import WIDTH
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.check_columns import beside
from stepgrant_broker.ledger.check_heads import Heads, KeptHead, published
from stepgrant_broker.ledger.check_tree import Trees
from stepgrant_broker.ledger.findings import TREE, Code, Finding, Place
from stepgrant_broker.ledger.readers import HttpLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stepgrant_broker.domain.log import LogStore, SignedHead, TreeHead
    from stepgrant_broker.domain.scanning import RawEntry, Scans
    from stepgrant_broker.ledger.findings import Progress
    from stepgrant_broker.ledger.readers import LogReader

PAGE: Final = 8 * WIDTH
WAITING: Final = 1000
GRACE_MS: Final = 30_000
PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Mark:
    """A root that somebody stands for, of the tree of this size."""

    size: int
    root: bytes
    at: Place
    code: Code
    what: str


@dataclass(slots=True)
class LogCheck:
    """What a check of the log works with. `watch` is told after each tile."""

    store: LogStore
    scans: Scans
    log: LogReader
    heads: Heads
    progress: Progress
    watch: Callable[[Progress], None]
    now: Callable[[], Awaitable[int]]
    known: Sequence[KeptHead] = ()
    marks: list[Mark] = field(default_factory=list)

    async def findings(self) -> AsyncIterator[Finding]:
        """Everything that is wrong with it, as it is found."""
        shown, there = await self._asked()
        newest = await self.store.log_published()
        stands = (await self.store.log_tail(1)).head
        end = max(stands.size, 0 if newest is None else newest.size)
        if not there:
            yield Finding(Code.HEAD_MISSING, TREE, "there are signed heads, but nobody who asks for one is shown any")
        for finding in [*self._shown(shown, end), *self._kept(end)]:
            yield finding
        trees = Trees(self.log, end, self.progress)
        async for finding in self._walk(trees, stands):
            yield finding
        for entry in await self.scans.leaves_outside(end):
            place = findings.entry(entry.tenant, entry.run, entry.seq)
            yield Finding(Code.LEAF_OUTSIDE, place, f"it claims leaf {entry.leaf_index}; there is none", entry.seq)
        async for finding in self._waiting():
            yield finding
        for finding in await self._unsigned(stands):
            yield finding

    async def _walk(self, trees: Trees, stands: TreeHead) -> AsyncIterator[Finding]:
        """Grow both trees up to each mark, and let it judge."""
        pages = _Pages(self.scans, trees.end)
        marks = sorted((mark for mark in self.marks if mark.size <= trees.end), key=lambda mark: mark.size)
        heads = aiter(published(self.store, trees.end))
        kept = await anext(heads, None)
        ended = False
        while not ended:
            size = min([mark.size for mark in marks[:1]] + ([kept.size] if kept is not None else []) + [trees.end])
            async for finding in self._grow(trees, pages, size):
                yield finding
            while kept is not None and kept.size <= size:
                root, found = self.heads.judge(kept)
                for finding in found:
                    yield finding
                if root is not None:
                    at, what = findings.head(kept.size), "that this head was signed over"
                    for finding in trees.judge(root, at, Code.HEAD_DIFFERS, what):
                        yield finding
                kept = await anext(heads, None)
            while marks and marks[0].size <= size:
                mark = marks.pop(0)
                for finding in trees.judge(mark.root, mark.at, mark.code, mark.what):
                    yield finding
            ended = size == trees.end and not marks and kept is None
        for finding in [*_stands(trees, stands), *await trees.finish()]:
            yield finding

    async def _grow(self, trees: Trees, pages: _Pages, size: int) -> AsyncIterator[Finding]:
        while trees.size < size:
            stop = min(size, (trees.size // WIDTH + 1) * WIDTH)
            claims = [await pages.claims(index) for index in range(trees.size, stop)]
            for finding in await trees.grow(claims):
                yield finding
            self.watch(self.progress)

    async def _asked(self) -> tuple[bytes | None, bool]:
        """The head that anybody gets, and whether there is one if there has to be.

        A broker shows it a moment after it began; this process shows none before it has made a round of its own.
        """
        until = time.monotonic() + GRACE_MS / 1000
        while True:
            shown = await self.log.head()
            if shown is not None or not isinstance(self.log, HttpLog) or await self.store.log_published() is None:
                return shown, True
            if time.monotonic() >= until:
                return None, False
            await asyncio.sleep(PAUSE_S)

    def _shown(self, shown: bytes | None, end: int) -> Iterator[Finding]:
        """The head that anybody gets."""
        if shown is None:
            return
        try:
            head, note = tlog.read_signed_head(shown)
        except (tlog.NoteInvalid, tlog.HeadUnreadable) as error:
            yield Finding(Code.HEAD_UNREADABLE, TREE, f"the head that is shown: {error}")
            return
        at = findings.head(head.size)
        wrong = self.heads.unsigned(head, note)
        if wrong is not None:
            yield Finding(Code.HEAD_UNSIGNED, at, f"the head that is shown: {wrong}")
        elif head.size > end:
            what = f"the head that is shown is of a tree of {head.size} leaves, here are {end}"
            yield Finding(Code.ROLLED_BACK, at, what)
        else:
            self.marks.append(Mark(head.size, head.root, at, Code.HEAD_DIFFERS, "of the head that is shown"))

    def _kept(self, end: int) -> Iterator[Finding]:
        """What others kept of this log."""
        for kept in self.known:
            try:
                head, note = tlog.read_signed_head(kept.data)
            except (tlog.NoteInvalid, tlog.HeadUnreadable) as error:
                yield Finding(Code.HEAD_UNREADABLE, findings.row("kept", by=kept.by), str(error))
                continue
            at = findings.head(head.size)
            wrong = self.heads.unsigned(head, note)
            if wrong is not None:
                yield Finding(Code.HEAD_UNSIGNED, at, f"{kept.by}: {wrong}")
            elif head.size > end:
                what = f"{kept.by} knows a tree of {head.size} leaves, here are {end}"
                yield Finding(Code.ROLLED_BACK, at, what)
            else:
                self.marks.append(Mark(head.size, head.root, at, Code.FORKED, f"of the head that {kept.by} keeps"))

    async def _waiting(self) -> AsyncIterator[Finding]:
        """Entries that no leaf stands for yet: their bytes are in their chain, the columns beside them are checked."""
        after: RawEntry | None = None
        while page := await self.scans.entries_waiting(after, WAITING):
            for entry in page:
                for finding in beside(entry, hashlib.sha256(entry.data).digest()):
                    yield finding
            self.progress.waiting += len(page)
            after = page[-1]

    async def _unsigned(self, stands: TreeHead) -> list[Finding]:
        """Leaves that no signed head covers, and heads of which none counts."""
        newest = await self.store.log_published()
        if newest is None and stands.size:
            newest = await self._comes(stands.ts, lambda kept: kept is not None)
        self.progress.unsigned = max(0, stands.size - (0 if newest is None else newest.size))
        if newest is None:
            what = f"there are {stands.size} leaves, and no signed head at all"
            return [Finding(Code.HEAD_MISSING, TREE, what)] if stands.size else []
        if self.progress.counted == 0 and self.heads.signed:
            newest = await self._comes(newest.ts, self.heads.counts) or newest
            if self.progress.counted == 0:
                what = "too few witnesses cosigned any of the signed heads"
                return [Finding(Code.QUORUM_MISSING, findings.head(newest.size), what)]
        return []

    async def _comes(self, began: int, is_there: Callable[[SignedHead | None], bool]) -> SignedHead | None:
        """The newest signed head, once it is as it has to be, or the time since `began` (ms) was enough for it."""
        until = time.monotonic() + GRACE_MS / 1000
        while True:
            newest = await self.store.log_published()
            if is_there(newest) or await self.now() - began >= GRACE_MS or time.monotonic() >= until:
                return newest
            await asyncio.sleep(PAUSE_S)


@dataclass(slots=True)
class _Pages:
    """Entries by leaf index, read ahead a page at a time."""

    scans: Scans
    end: int
    _first: int = 0
    _page: dict[int, list[RawEntry]] = field(default_factory=dict)
    _stop: int = 0

    async def claims(self, index: int) -> list[RawEntry]:
        """The entries that claim this leaf."""
        if index >= self._stop:
            self._stop = min(self.end, index + PAGE)
            self._page = {}
            for entry in await self.scans.leaves_between(index, self._stop):
                self._page.setdefault(int(entry.leaf_index or 0), []).append(entry)
        return self._page.get(index, [])


def _stands(trees: Trees, stands: TreeHead) -> Iterator[Finding]:
    """The tree's own head, which nobody signed: it must be where both trees have come to."""
    if stands.size != trees.end:
        yield Finding(Code.TREE_DIFFERS, TREE, f"its size is {stands.size}, a signed head is of {trees.end}")
        return
    yield from trees.judge(stands.root, TREE, Code.TREE_DIFFERS, "that its root is over")
