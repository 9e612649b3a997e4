"""The log over all chains: the Merkle tree whose leaves are the hashes of entries (`protocol.md` §6, RFC 6962).

Rules:
* A leaf is the 32-byte hash of an entry, so nothing of a tenant is in the tree.
* Leaf indexes are given to entries without one, in `seq` order within a run. An id cursor would pass over what commits
  late; an index that is missing does not.
* The tree only grows: what is appended names the head that it continues, and the store compares (`LogStore.append`).
* A head is signed only once it is durable: a signed head without its leaves could never be continued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stepgrant.merkle import EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The root over the first `size` leaves, and when it was integrated (ms)."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    ts: int = 0


class Leaf(NamedTuple):
    """An entry that has no leaf index yet. `chain` is a run's id, or empty for the tenant's own chain."""

    tenant: str
    chain: str
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the tree ends: its head, the ragged tile of each level (by level), and the next leaves in their order."""

    head: TreeHead
    edge: Mapping[int, bytes] = field(default_factory=dict)
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True, slots=True)
class Growth:
    """Leaves appended behind `before`: the first one gets the index `before.size`. `tiles` are those that changed."""

    before: TreeHead
    after: TreeHead
    leaves: tuple[Leaf, ...]
    tiles: Mapping[tuple[int, int], bytes]


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as it is published: `note` is the whole signed note (C2SP tlog-checkpoint), cosignatures included."""

    size: int
    root: bytes
    ts: int
    note: bytes


class LogStore(Protocol):
    """The tree's rows. All raise `StoreUnavailable`."""

    @property
    def commits(self) -> int:
        """How many durable transactions this store made, but for those of the log."""

    async def log_origin(self, proposed: str) -> str:
        """The log's name for ever: the one it has, or this one for a log that begins now."""

    async def log_tail(self, limit: int) -> Tail:
        """The end of the tree, and up to `limit` leaves that wait."""

    async def log_append(self, growth: Growth) -> bool:
        """Append durably; False, and nothing is there, if the tree is not at `growth.before` or a leaf has an index."""

    async def log_tiles(self, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Tiles by (level, number), as wide as they are now; missing ones are left out."""

    async def log_leaves(self, first: int, count: int) -> tuple[bytes, ...]:
        """The leaves (hashes of entries) from this index on; fewer at the end."""

    async def log_publish(self, head: SignedHead, origin: str | None = None) -> SignedHead:
        """Keep a signed head; it as it is then. One of this size has the same root, and its signatures are kept, too.

        Raises `VersionMoved` for another root of this size, and if the log is not called `origin` (any more).
        """

    async def log_rename(self, before: str, after: str) -> None:
        """Give the log another name, once; again changes nothing. Raises `VersionMoved` if it has neither."""

    async def log_published(self, size: int | None = None) -> SignedHead | None:
        """The newest signed head, or that of this very size."""

    async def log_published_after(self, size: int, limit: int) -> tuple[SignedHead, ...]:
        """Signed heads above this size, smallest first."""

    async def log_published_before(self, size: int, limit: int) -> tuple[SignedHead, ...]:
        """Signed heads below this size, largest first."""
