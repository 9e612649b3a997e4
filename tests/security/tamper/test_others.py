"""What nobody finds in the database alone: a rollback, and another past that was signed with the log's own key.

Both are found by whoever kept a head elsewhere, in a file or as a witness; and both are shown to be invisible without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from security.tamper.stolen import Stolen
from security.tamper.victim import signed, signing_key
from stepgrant import tlog
from stepgrant_broker.ledger.check_heads import KeptHead
from stepgrant_broker.ledger.findings import Code, head, row


def of_file(stolen: Stolen, size: int) -> KeptHead:
    """A head that somebody saved from the log's public address."""
    return KeptHead(stolen.victim.heads[size], "head.txt")


def of_witness(stolen: Stolen, _: int) -> KeptHead:
    """What the witness remembers."""
    return KeptHead(stolen.victim.witnessed, "the witness")


KEEPERS = pytest.mark.parametrize("keeper", [of_file, of_witness])


async def test_a_backup_that_was_put_back_cannot_be_told(stolen_from: Callable[[str], Stolen]) -> None:
    backup = stolen_from("backup")
    assert await backup.findings() == []
    older = min(backup.victim.heads)
    assert await backup.findings(of_file(backup, older)) == []
    assert await backup.findings(of_file(backup, backup.victim.old)) == []


@KEEPERS
async def test_unless_somebody_kept_a_newer_head(
    stolen_from: Callable[[str], Stolen], keeper: Callable[[Stolen, int], KeptHead]
) -> None:
    backup = stolen_from("backup")
    size = backup.victim.size
    (found,) = await backup.findings(keeper(backup, size))
    assert (found.code, found.at) == (Code.ROLLED_BACK, head(size))
    assert f"knows a tree of {size} leaves, here are {backup.victim.old}" in found.what


def rewrite(stolen: Stolen) -> int:
    """Another past of equal size, with the key that signs heads; the first leaf that is another."""
    run = stolen.victim.run

    def change(entry: dict[str, Any]) -> None:
        entry["salt"] = "A" * 22

    stolen.rechain(run, 9, change)
    stolen.retree()
    stolen.resign()
    return stolen.leaf_of(run, 9)


async def test_a_fork_of_equal_size_by_the_key_itself_cannot_be_told(stolen: Stolen) -> None:
    """Without cosignatures, which the thief cannot make; with them he cannot make a head that counts."""
    rewrite(stolen)
    assert await stolen.findings(quorum=False) == []
    (found,) = await stolen.findings()
    assert (found.code, found.at) == (Code.QUORUM_MISSING, head(stolen.victim.size))


@KEEPERS
async def test_unless_somebody_kept_a_head_of_the_true_past(
    stolen: Stolen, keeper: Callable[[Stolen, int], KeptHead]
) -> None:
    rewrite(stolen)
    size = stolen.victim.size
    (found,) = await stolen.findings(keeper(stolen, size), quorum=False)
    assert (found.code, found.at) == (Code.FORKED, head(size))


async def test_several_heads_say_between_which_leaves_it_forked(stolen: Stolen) -> None:
    index = rewrite(stolen)
    stolen.resign()
    first, second, *_ = (size for size in sorted(stolen.victim.heads) if size > index)
    kept = [of_file(stolen, second), of_file(stolen, first)]
    found = await stolen.findings(*kept, quorum=False)
    assert [(finding.code, finding.at) for finding in found] == [
        (Code.FORKED, head(first)),
        (Code.FORKED, head(second)),
    ]


def other_root(note: bytes) -> bytes:
    """The note with another letter in its root, which is base64 as before."""
    at = note.index(b"\n", note.index(b"\n") + 1) + 10
    return note[:at] + (b"B" if note[at : at + 1] == b"A" else b"A") + note[at + 1 :]


async def test_a_head_that_is_none_of_this_logs_is_no_proof(stolen: Stolen) -> None:
    size = stolen.victim.size
    secret = signing_key(stolen.folder)
    kept = [
        KeptHead(signed(secret, size, b"\x07" * 32, "other.example/log"), "other.txt"),
        KeptHead(other_root(stolen.victim.heads[size]), "damaged.txt"),
        KeptHead(b"", "empty.txt"),
    ]
    found = await stolen.findings(*kept)
    assert [(finding.code, finding.at) for finding in found] == [
        (Code.HEAD_UNSIGNED, head(size)),
        (Code.HEAD_UNSIGNED, head(size)),
        (Code.HEAD_UNREADABLE, row("kept", by="empty.txt")),
    ]


async def test_what_others_kept_of_the_true_past_finds_nothing_in_it(stolen: Stolen) -> None:
    kept = [of_file(stolen, size) for size in stolen.victim.heads]
    assert await stolen.findings(*kept, of_witness(stolen, 0)) == []
    assert tlog.read_signed_head(stolen.victim.witnessed)[0].size == stolen.victim.size
