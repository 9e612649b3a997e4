"""The tree against a naive one: the recursive definitions of RFC 6962 §2.1, written down as they stand there."""

from __future__ import annotations

import hashlib
import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrant import merkle
from stepgrant.merkle import Edge, Node, ProofInvalid, Range, leaf_hash, node_hash, proof_of, tree_root

ALL = 2000
LARGE = 1_000_000
LEAVES = [b"entry %d" % n for n in range(ALL)]


@cache
def naive_root(begin: int, end: int) -> bytes:
    """MTH of leaves `begin` to `end` (RFC 6962 §2.1)."""
    if begin == end:
        return hashlib.sha256(b"").digest()
    if end - begin == 1:
        return hashlib.sha256(b"\x00" + LEAVES[begin]).digest()
    middle = begin + split(end - begin)
    return hashlib.sha256(b"\x01" + naive_root(begin, middle) + naive_root(middle, end)).digest()


def split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def naive_path(index: int, begin: int, end: int) -> list[bytes]:
    """PATH (RFC 6962 §2.1.1)."""
    if end - begin == 1:
        return []
    middle = begin + split(end - begin)
    if index < middle:
        return [*naive_path(index, begin, middle), naive_root(middle, end)]
    return [*naive_path(index, middle, end), naive_root(begin, middle)]


def naive_proof(old: int, begin: int, end: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF (RFC 6962 §2.1.2)."""
    if old == end:
        return [] if whole else [naive_root(begin, end)]
    middle = begin + split(end - begin)
    if old <= middle:
        return [*naive_proof(old, begin, middle, whole=whole), naive_root(middle, end)]
    return [*naive_proof(old, middle, end, whole=False), naive_root(begin, middle)]


@pytest.fixture(scope="module")
def nodes() -> dict[Node, bytes]:
    """All complete nodes of the tree over `LEAVES`, appended in batches of every size."""
    edge, made, at, step = Edge(), dict[Node, bytes](), 0, 1
    while at < ALL:
        edge, new = edge.append(leaf_hash(leaf) for leaf in LEAVES[at : at + step])
        assert not made.keys() & dict(new).keys()
        made |= dict(new)
        at, step = min(ALL, at + step), step % 37 + 1
        assert edge.size == at
        assert edge.root == naive_root(0, at)
    return made


def test_roots_of_all_sizes(nodes: dict[Node, bytes]) -> None:
    for size in range(ALL + 1):
        assert tree_root(size, nodes.__getitem__) == naive_root(0, size)


def test_inclusion_in_all_sizes(nodes: dict[Node, bytes]) -> None:
    """Of the first, the last, the middle and some leaves of every size."""
    dice = random.Random(1)
    for size in range(1, ALL + 1):
        root = naive_root(0, size)
        for index in {0, size - 1, size // 2, dice.randrange(size), dice.randrange(size)}:
            proof = proof_of(merkle.inclusion_ranges(index, size), nodes.__getitem__)
            assert proof == naive_path(index, 0, size)
            merkle.verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, root)


def test_consistency_of_all_sizes(nodes: dict[Node, bytes]) -> None:
    dice = random.Random(2)
    for new in range(1, ALL + 1):
        for old in {0, 1, new, new - 1, new // 2, dice.randrange(new), dice.randrange(new)}:
            proof = proof_of(merkle.consistency_ranges(old, new), nodes.__getitem__)
            assert proof == (naive_proof(old, 0, new, whole=True) if old else [])
            merkle.verify_consistency(old, new, proof, naive_root(0, old), naive_root(0, new))


def mutated(proof: list[bytes], dice: random.Random) -> list[bytes]:
    """The proof with one thing wrong with it."""
    at = dice.randrange(len(proof)) if proof else 0
    match dice.choice(["flip", "drop", "add", "swap", "short"]) if len(proof) > 1 else "add":
        case "flip":
            bit = 1 << dice.randrange(256)
            changed = (int.from_bytes(proof[at], "big") ^ bit).to_bytes(32, "big")
            return [*proof[:at], changed, *proof[at + 1 :]]
        case "drop":
            return [*proof[:at], *proof[at + 1 :]]
        case "swap":
            return [*proof[1:], proof[0]]
        case "short":
            return [*proof[:at], proof[at][:-1], *proof[at + 1 :]]
        case _:
            return [*proof[:at], dice.randbytes(32), *proof[at:]]


def test_what_is_wrong_with_a_proof_is_refused() -> None:
    """Mutated hashes; other indexes; other sizes, where the size shows in the path."""
    dice = random.Random(3)
    for _ in range(5000):
        size = dice.randrange(2, ALL + 1)
        index, root = dice.randrange(size), naive_root(0, size)
        leaf, proof = leaf_hash(LEAVES[index]), naive_path(index, 0, size)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(leaf, index, size, mutated(proof, dice), root)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(leaf, (index + dice.randrange(1, size)) % size, size, proof, root)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
        old = dice.randrange(1, size)
        path = naive_proof(old, 0, size, whole=True)
        older = naive_root(0, old)
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, size, mutated(path, dice), older, root)
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, size, path, naive_root(0, old - 1), root)
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, size, path, older, naive_root(0, size - 1))


@pytest.mark.timeout(300)
def test_random_trees_of_up_to_a_million_leaves() -> None:
    """One tree of a million, whose smaller trees are its beginnings; roots come from an edge of their own."""
    dice = random.Random(4)
    leaves = [leaf_hash(n.to_bytes(4, "big")) for n in range(LARGE)]
    nodes: dict[Node, bytes] = {}
    level, row = 0, leaves
    while row:
        nodes.update({Node(level, at): found for at, found in enumerate(row)})
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        level += 1
    sizes = sorted({LARGE, 2**19, 2**19 + 1, *(dice.randrange(2, LARGE) for _ in range(60))})
    edge, roots = Edge(), dict[int, bytes]()
    for size in sizes:
        edge, made = edge.append(leaves[edge.size : size])
        assert all(nodes[node] == found for node, found in made[-40:])
        roots[size] = edge.root
    for size in sizes:
        assert tree_root(size, nodes.__getitem__) == roots[size]
        index = dice.randrange(size)
        proof = proof_of(merkle.inclusion_ranges(index, size), nodes.__getitem__)
        merkle.verify_inclusion(leaves[index], index, size, proof, roots[size])
        old = dice.choice([one for one in sizes if one <= size])
        path = proof_of(merkle.consistency_ranges(old, size), nodes.__getitem__)
        merkle.verify_consistency(old, size, path, roots[old], roots[size])
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(leaves[index], index, size, mutated(proof, dice), roots[size])


@given(begin=st.integers(0, 10_000), length=st.integers(0, 10_000))
def test_nodes_of_a_range_cover_it_once(begin: int, length: int) -> None:
    at = begin
    for level, number in merkle.nodes_of(Range(begin, begin + length)):
        assert number << level == at
        at += 1 << level
    assert at == begin + length


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (3, 3), (0, 2**63)])
def test_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="there is no leaf"):
        merkle.inclusion_ranges(index, size)
    with pytest.raises(ProofInvalid, match="index_outside"):
        merkle.verify_inclusion(bytes(32), index, size, [], bytes(32))


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1), (0, 2**63)])
def test_a_tree_never_shrinks(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="is no beginning"):
        merkle.consistency_ranges(old, new)
    with pytest.raises(ProofInvalid, match="shrunk"):
        merkle.verify_consistency(old, new, [], bytes(32), bytes(32))


def test_trees_of_equal_size_have_one_root_and_an_empty_proof() -> None:
    merkle.verify_consistency(5, 5, [], b"r" * 32, b"r" * 32)
    with pytest.raises(ProofInvalid, match="other_old_root"):
        merkle.verify_consistency(5, 5, [], b"r" * 32, b"s" * 32)
    with pytest.raises(ProofInvalid, match="too long"):
        merkle.verify_consistency(5, 5, [bytes(32)], b"r" * 32, b"r" * 32)
    with pytest.raises(ProofInvalid, match="other_old_root"):
        merkle.verify_consistency(0, 5, [], b"r" * 32, b"s" * 32)


def test_an_endless_proof_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(ProofInvalid, match="at most 63"):
        merkle.verify_inclusion(bytes(32), 0, 2**62, [bytes(32)] * 64 + [bytes(32)] * 10, bytes(32))


def test_an_edge_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 hashes"):
        Edge(3, (bytes(32),))
