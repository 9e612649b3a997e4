"""Manipulations of the tree: tiles, its head, signed heads and cosignatures."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from security.tamper.stolen import Stolen
from security.tamper.table import Expected, flipped, manipulation
from security.tamper.victim import WITNESS, signed, signing_key
from stepgrant import tlog
from stepgrant_broker.ledger.findings import TREE, Code, head, leaf, tile


def _change_tile(stolen: Stolen, level: int, number: int, at: int = 0) -> None:
    sql = "SELECT data FROM log_tiles WHERE level = :level AND number = :number"
    data = stolen.one(sql, level=level, number=number)
    sql = "UPDATE log_tiles SET data = :data WHERE level = :level AND number = :number"
    stolen.do(sql, data=flipped(data, at), level=level, number=number)


@manipulation
def a_bit_of_a_leaf_is_flipped(stolen: Stolen) -> Expected:
    _change_tile(stolen, 0, 0, 32 * 100)
    return [(Code.TILE_CHANGED, tile(0, 0))]


@manipulation
def a_bit_of_the_newest_leaf_is_flipped(stolen: Stolen) -> Expected:
    _change_tile(stolen, 0, 1, -1)
    return [(Code.TILE_CHANGED, tile(0, 1))]


@manipulation
def a_bit_of_a_node_is_flipped(stolen: Stolen) -> Expected:
    _change_tile(stolen, 1, 0)
    return [(Code.TILE_CHANGED, tile(1, 0))]


@manipulation
def a_tile_is_shorter_than_the_tree(stolen: Stolen) -> Expected:
    data = stolen.one("SELECT data FROM log_tiles WHERE level = 0 AND number = 1")
    stolen.do("UPDATE log_tiles SET data = :data WHERE level = 0 AND number = 1", data=data[:-32])
    return [(Code.TILE_MISSING, tile(0, 1))]


@manipulation
def a_tile_is_deleted(stolen: Stolen) -> Expected:
    stolen.do("DELETE FROM log_tiles WHERE level = 0 AND number = 0")
    return [(Code.TILE_MISSING, tile(0, 0))]


@manipulation
def a_tile_of_nodes_is_deleted(stolen: Stolen) -> Expected:
    stolen.do("DELETE FROM log_tiles WHERE level = 1 AND number = 0")
    return [(Code.TILE_MISSING, tile(1, 0))]


@manipulation
def two_leaves_of_a_tile_change_places(stolen: Stolen) -> Expected:
    data = stolen.one("SELECT data FROM log_tiles WHERE level = 0 AND number = 0")
    swapped = data[32:64] + data[:32] + data[64:]
    stolen.do("UPDATE log_tiles SET data = :data WHERE level = 0 AND number = 0", data=swapped)
    return [(Code.TILE_CHANGED, tile(0, 0))]


@manipulation
def the_trees_root_is_another(stolen: Stolen) -> Expected:
    stolen.do("UPDATE log SET root = :root", root=b"\x02" * 32)
    return [(Code.TREE_DIFFERS, TREE)]


@manipulation
def the_trees_size_is_smaller(stolen: Stolen) -> Expected:
    stolen.do("UPDATE log SET size = size - 1")
    return [(Code.TREE_DIFFERS, TREE)]


@manipulation
def the_trees_size_is_larger(stolen: Stolen) -> Expected:
    size = stolen.victim.size
    stolen.do("UPDATE log SET size = size + 1")
    return [(Code.TREE_DIFFERS, TREE), (Code.LEAF_MISSING, leaf(size)), (Code.TILE_MISSING, tile(0, 1))]


@manipulation
def history_is_rewritten_without_the_signing_key(stolen: Stolen) -> Expected:
    """The whole chain, its leaves, all tiles and the tree's head fit together: no signed head does."""
    run = stolen.victim.run
    stolen.rechain(run, 3, lambda one: one.update(salt="A" * 22))
    stolen.retree()
    first = min(size for size in stolen.victim.heads if size > stolen.leaf_of(run, 3))
    return [(Code.HEAD_DIFFERS, head(size)) for size in sorted(stolen.victim.heads) if size >= first]


def _middle(stolen: Stolen) -> int:
    return sorted(stolen.victim.heads)[2]


def _put_note(stolen: Stolen, size: int, note: bytes) -> None:
    assert stolen.do("UPDATE log_heads SET note = :note WHERE size = :size", note=note, size=size) == 1


@manipulation
def the_root_beside_a_head_is_another(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    stolen.do("UPDATE log_heads SET root = :root WHERE size = :size", root=b"\x03" * 32, size=size)
    return [(Code.HEAD_DIFFERS, head(size))]


@manipulation
def a_bit_of_a_heads_signature_is_flipped(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    note = tlog.read_note(stolen.victim.heads[size])
    log, *others = note.signatures
    forged = tlog.NoteSignature(log.name, log.key_id, flipped(log.blob))
    _put_note(stolen, size, tlog.Note(note.text, (forged, *others)).encoded())
    return [(Code.HEAD_UNSIGNED, head(size))]


@manipulation
def a_head_says_another_root(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    note = tlog.read_note(stolen.victim.heads[size])
    text = tlog.Head("broker.example/log", size, b"\x04" * 32).text
    _put_note(stolen, size, tlog.Note(text, note.signatures).encoded())
    return [(Code.HEAD_UNSIGNED, head(size))]


@manipulation
def an_old_head_stands_for_a_new_one(stolen: Stolen) -> Expected:
    old, new = min(stolen.victim.heads), max(stolen.victim.heads)
    _put_note(stolen, new, stolen.victim.heads[old])
    return [(Code.HEAD_DIFFERS, head(new))]


@manipulation
def a_head_is_of_another_log(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    root = stolen.one("SELECT root FROM log_heads WHERE size = :size", size=size)
    _put_note(stolen, size, signed(signing_key(stolen.folder), size, root, "other.example/log"))
    return [(Code.HEAD_UNSIGNED, head(size))]


@manipulation
def a_head_is_signed_by_another_key(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    root = stolen.one("SELECT root FROM log_heads WHERE size = :size", size=size)
    _put_note(stolen, size, signed(Ed25519PrivateKey.generate(), size, root))
    return [(Code.HEAD_UNSIGNED, head(size))]


@manipulation
def a_head_is_signed_over_another_tree_with_the_stolen_key(stolen: Stolen) -> Expected:
    """A second head of one size: the log would have forked."""
    size = _middle(stolen)
    _put_note(stolen, size, signed(signing_key(stolen.folder), size, b"\x05" * 32))
    stolen.do("UPDATE log_heads SET root = :root WHERE size = :size", root=b"\x05" * 32, size=size)
    return [(Code.HEAD_DIFFERS, head(size))]


@manipulation
def a_head_is_no_note_at_all(stolen: Stolen) -> Expected:
    _put_note(stolen, _middle(stolen), b"\xff")
    return [(Code.HEAD_UNREADABLE, head(_middle(stolen)))]


@manipulation
def a_head_is_of_a_size_that_was_never_signed(stolen: Stolen) -> Expected:
    """It is signed, but for another size than the row says."""
    size = _middle(stolen)
    stolen.do("UPDATE log_heads SET size = :new WHERE size = :size", new=size + 1, size=size)
    return [(Code.HEAD_DIFFERS, head(size + 1))]


@manipulation
def a_head_is_of_a_larger_tree_than_there_is(stolen: Stolen) -> Expected:
    """The tree cut back behind a head that was signed: its tail is gone, all else fits."""
    size, keep = stolen.victim.size, stolen.victim.size - 5
    lost = stolen.look("SELECT chain, seq FROM entries WHERE leaf_index >= :keep ORDER BY leaf_index", keep=keep)
    stolen.do("UPDATE entries SET leaf_index = NULL WHERE leaf_index >= :keep", keep=keep)
    hashes = [row[0] for row in stolen.look("SELECT hash FROM entries WHERE leaf_index >= 0 ORDER BY leaf_index")]
    assert (len(hashes), len(lost)) == (keep, 5)
    stolen.retree()
    return [(Code.LEAF_MISSING, leaf(keep)), (Code.TILE_MISSING, tile(0, 1)), (Code.HEAD_DIFFERS, head(size)),
            (Code.TREE_DIFFERS, TREE)]  # fmt: skip


@manipulation
def a_cosignature_is_forged(stolen: Stolen) -> Expected:
    size = _middle(stolen)
    note = tlog.read_note(stolen.victim.heads[size])
    changed = [
        tlog.NoteSignature(one.name, one.key_id, flipped(one.blob)) if one.name == WITNESS else one
        for one in note.signatures
    ]
    _put_note(stolen, size, tlog.Note(note.text, tuple(changed)).encoded())
    return [(Code.COSIGNATURE_INVALID, head(size))]


@manipulation
def all_cosignatures_are_gone(stolen: Stolen) -> Expected:
    for size, data in stolen.victim.heads.items():
        note = tlog.read_note(data)
        _put_note(stolen, size, tlog.Note(note.text, note.signatures[:1]).encoded())
    return [(Code.QUORUM_MISSING, head(stolen.victim.size))]


@manipulation
def all_signed_heads_are_deleted(stolen: Stolen) -> Expected:
    stolen.do("DELETE FROM log_heads")
    return [(Code.HEAD_MISSING, TREE)]


@manipulation
def the_trees_row_is_deleted(stolen: Stolen) -> Expected:
    stolen.do("DELETE FROM log")
    return [(Code.TREE_DIFFERS, TREE)]
