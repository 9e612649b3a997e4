"""RFC 6962 Merkle trees: hashing, and inclusion and consistency proofs, made and verified.

A tree is over leaves numbered from 0; `size` is their number. The hash of a complete subtree is named by a `Node`:
level 0 are leaf hashes, and node (l, n) covers leaves n·2^l up to (n+1)·2^l. Everything else is computed from those.

* Proofs are made in two beats, so that their nodes can be read in one go: `*_ranges` says which subtrees a proof is
  made of, `nodes_of` which complete nodes such a subtree is made of, `subtree_root` puts them together.
* Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2 step by step and raises `ProofInvalid`, never anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from stepgrant._verification_errors import ReceiptError

HASH_BYTES: Final = 32
MAX_SIZE: Final = 2**63 - 1
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
_MAX_PROOF: Final = 63


class ProofInvalid(ReceiptError):
    """A proof does not connect what it should connect."""


class Node(NamedTuple):
    """A complete subtree: the `number`-th (from 0) of its level; level 0 are the leaf hashes."""

    level: int
    number: int


class Range(NamedTuple):
    """The leaves from `begin` up to, but without, `end`: a subtree of some tree, complete or its ragged right edge."""

    begin: int
    end: int


ReadNode = Callable[[Node], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf) (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right) (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two that is smaller than `count` (2 or more)."""
    return 1 << ((count - 1).bit_length() - 1)


def nodes_of(leaves: Range) -> list[Node]:
    """The complete nodes that a subtree is made of, from left to right, largest first."""
    found: list[Node] = []
    begin, end = leaves
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        found.append(Node(level, begin >> level))
        begin += 1 << level
    return found


def subtree_root(leaves: Range, read: ReadNode) -> bytes:
    """The hash of a subtree; that of no leaves is `EMPTY_ROOT`."""
    nodes = nodes_of(leaves)
    if not nodes:
        return EMPTY_ROOT
    root = read(nodes.pop())
    while nodes:
        root = node_hash(read(nodes.pop()), root)
    return root


def tree_root(size: int, read: ReadNode) -> bytes:
    """The root of the tree over the first `size` leaves."""
    return subtree_root(Range(0, size), read)


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose hashes prove leaf `index` in the tree of `size`, from the leaf upwards (RFC 6962 §2.1.1).

    Raises `ValueError` where there is no such leaf.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path: list[Range] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(begin, middle))
            begin = middle
    return path[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose hashes prove that the tree of `old` is a beginning of that of `new` (RFC 6962 §2.1.2).

    Empty for `old` 0 (RFC 9162 leaves that undefined; there is nothing to prove) and for equal sizes.
    Raises `ValueError` for sizes that shrink.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise ValueError(f"a tree of {old} is no beginning of one of {new}")
    if old in {0, new}:
        return []
    path: list[Range] = []
    begin, end, whole = 0, new, True
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(Range(middle, end))
            end = middle
        else:
            path.append(Range(begin, middle))
            begin, whole = middle, False
    if not whole:
        path.append(Range(begin, end))
    return path[::-1]


def proof_of(ranges: Iterable[Range], read: ReadNode) -> list[bytes]:
    """The hashes of a proof."""
    return [subtree_root(one, read) for one in ranges]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises `ProofInvalid` unless the leaf with this hash is leaf `index` of the tree (RFC 9162 §2.1.3.2).

    `leaf` is the leaf *hash* (`leaf_hash`), `root` the tree's root.
    """
    _check_hashes((leaf, root, *proof))
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofInvalid(f"leaf {index} is not in a tree of {size}", reason="index_outside")
    _, found = _climb(index, size - 1, leaf, proof)
    if found != root:
        raise ProofInvalid("the inclusion proof leads to another root", reason="other_root")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raises `ProofInvalid` unless the older tree is a beginning of the newer one (RFC 9162 §2.1.4.2)."""
    _check_hashes((old_root, new_root, *proof))
    if not 0 <= old <= new <= MAX_SIZE:
        raise ProofInvalid(f"a tree of {old} is no beginning of one of {new}", reason="shrunk")
    if old in {0, new}:
        older, newer = (EMPTY_ROOT, new_root) if old == 0 else (new_root, new_root)
        path: list[bytes] = list(proof)
    else:
        # Where the older tree is one complete subtree, the proof leaves out its hash, which is the older root.
        path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
        if not path:
            raise ProofInvalid("the consistency proof is too short", reason="proof_length")
        zeros = (~(old - 1) & old).bit_length() - 1
        older, newer = _climb((old - 1) >> zeros, (new - 1) >> zeros, path[0], path[1:])
        path = []
    if path:
        raise ProofInvalid("the consistency proof is too long", reason="proof_length")
    if older != old_root:
        raise ProofInvalid("the consistency proof leads to another older root", reason="other_old_root")
    if newer != new_root:
        raise ProofInvalid("the consistency proof leads to another newer root", reason="other_root")


def _climb(at: int, last: int, start: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """From a node up to the roots of the tree that ends with it, and of the tree whose last node is `last`."""
    older = newer = start
    for other in proof:
        if last == 0:
            raise ProofInvalid("the proof is too long", reason="proof_length")
        if at & 1 or at == last:
            older, newer = node_hash(other, older), node_hash(other, newer)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, other)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("the proof is too short", reason="proof_length")
    return older, newer


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > _MAX_PROOF + 2:
        raise ProofInvalid("a proof has at most 63 hashes", reason="proof_length")
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofInvalid("a hash is 32 bytes", reason="hash_length")


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: all that is needed to append. `hashes` are those of `nodes_of(Range(0, size))`."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Raises `ValueError` where the number of hashes is not that of the size."""
        if self.size.bit_count() != len(self.hashes):
            raise ValueError(f"the edge of a tree of {self.size} has {self.size.bit_count()} hashes")

    @property
    def root(self) -> bytes:
        """The tree's root."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def append(self, leaves: Iterable[bytes]) -> tuple[Edge, list[tuple[Node, bytes]]]:
        """The edge after these leaf hashes, and every node that became complete, in the order in which it did."""
        size, stack, made = self.size, list(self.hashes), list[tuple[Node, bytes]]()
        for leaf in leaves:
            at, found = size, leaf
            made.append((Node(0, at), found))
            level = 0
            while at & 1:
                found = node_hash(stack.pop(), found)
                at >>= 1
                level += 1
                made.append((Node(level, at), found))
            stack.append(found)
            size += 1
        return Edge(size, tuple(stack)), made
