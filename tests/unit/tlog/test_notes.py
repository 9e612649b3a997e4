"""Signed notes, heads, proofs, requests to witnesses: one form each, and all else is refused by name."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notehands import ALICE, BOB, GOOD, LOG, ORIGIN, OTHER, Hand, head_of, signed
from stepgrant import merkle, tlog
from stepgrant.errors import ReceiptError
from stepgrant.merkle import Edge, ProofInvalid, leaf_hash

# The example of the Go package golang.org/x/mod/sumdb/note, made by another implementation.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


# --------------------------------------------------------------------------------------------------------------- notes


def test_note_of_another_implementation_verifies() -> None:
    key = tlog.read_vkey(PETER)
    note = tlog.read_note(PETERS_NOTE.encode())

    assert note.verified([key]) == {key: None}
    assert note.encoded() == PETERS_NOTE.encode()
    assert key.vkey == PETER


def test_unknown_keys_are_passed_over_and_a_cosignature_tells_its_time() -> None:
    note = tlog.read_note(signed(head_of(3), LOG, ALICE, BOB))

    assert note.verified([LOG.key, ALICE.key]) == {LOG.key: None, ALICE.key: 1_800_000_000}


@pytest.mark.parametrize("hand", [LOG, ALICE])
def test_one_bad_signature_of_a_known_key_spoils_the_note(hand: Hand) -> None:
    good = tlog.read_note(signed(head_of(3), LOG, ALICE))
    other = tlog.Note(head_of(4), good.signatures)
    with pytest.raises(tlog.NoteInvalid, match="bad_signature"):
        other.verified([hand.key])


def test_another_key_of_the_same_name_is_unknown() -> None:
    assert tlog.read_note(signed(head_of(3), OTHER)).verified([LOG.key]) == {}


def test_a_cosignature_of_another_time_does_not_verify() -> None:
    text = head_of(3)
    blob = ALICE.sign(text, 5).blob
    moved = tlog.NoteSignature(ALICE.key.name, ALICE.key.id, (6).to_bytes(8, "big") + blob[8:])
    with pytest.raises(tlog.NoteInvalid, match="bad_signature"):
        tlog.Note(text, (moved,)).verified([ALICE.key])
    short = tlog.NoteSignature(ALICE.key.name, ALICE.key.id, blob[8:])
    with pytest.raises(tlog.NoteInvalid, match="another length"):
        tlog.Note(text, (short,)).verified([ALICE.key])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no signature\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("—", "-"),
        GOOD.replace(f"— {ORIGIN}", "— a+b"),
        GOOD.replace("=\n", "\n"),
        GOOD[:-3] + "!=\n",
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("3", "3\x00"),
        "text\n\n— name AAAA\n",
        "text\n\n" + GOOD.rpartition("\n\n")[2] * 65,
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(tlog.NoteInvalid, match="not_a_note"):
        tlog.read_note(text.encode())


def test_note_that_is_not_utf_8_or_too_large_is_refused() -> None:
    with pytest.raises(tlog.NoteInvalid, match="UTF-8"):
        tlog.read_note(b"\xff" + GOOD.encode())
    with pytest.raises(tlog.NoteInvalid, match="too_large"):
        tlog.read_note(b"a" * 1_000_001)


@pytest.mark.parametrize(
    ("vkey", "why"),
    [
        ("", "bad_vkey"),
        (PETER.replace("c74f20a3", "c74f20a4"), "bad_vkey"),
        (PETER.replace("PeterNeumann", "Peter"), "bad_vkey"),
        (PETER[:-1], "bad_vkey"),
        ("P+c74f20a3+AQ==", "unknown_kind"),
        ("P+c74f20a3+" + base64.b64encode(b"\x09" + bytes(32)).decode(), "unknown_kind"),
        ("P+c74f20a3+" + base64.b64encode(b"\x01" + bytes(32)).decode(), "bad_key"),
        ("P Q+c74f20a3+" + PETER.rpartition("+")[2], "bad_name"),
    ],
)
def test_what_is_no_verifier_key_is_refused(vkey: str, why: str) -> None:
    with pytest.raises(tlog.LogPolicyInvalid, match=why):
        tlog.read_vkey(vkey)


# --------------------------------------------------------------------------------------------------------------- heads


def test_head_comes_back_as_it_was_written() -> None:
    head = tlog.Head(ORIGIN, 2**63 - 1, b"r" * 32)
    assert tlog.read_head(head.text, ORIGIN) == head
    assert tlog.read_signed_head(signed(head.text, LOG), ORIGIN)[0] == head


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (head_of(3).replace(ORIGIN, "other.example"), "other_origin"),
        (head_of(3).replace("\n3\n", "\n03\n"), "not_a_head"),
        (head_of(3).replace("\n3\n", "\n-3\n"), "not_a_head"),
        (head_of(3).replace("\n3\n", f"\n{2**63}\n"), "not_a_head"),
        (head_of(3) + "extension\n", "not_a_head"),
        (head_of(3, bytes(31)), "not_a_head"),
        (head_of(3)[:-2] + "\n", "not_a_head"),
        (head_of(3).replace("A=\n", "B=\n"), "not_a_head"),
        (head_of(3).replace("A=\n", "é=\n"), "not_a_head"),
        (head_of(3).replace(ORIGIN, ""), "not_a_head"),
        (head_of(3)[:-1], "not_a_head"),
    ],
)
def test_what_is_no_head_is_refused(text: str, why: str) -> None:
    with pytest.raises(tlog.HeadUnreadable, match=why):
        tlog.read_head(text, ORIGIN)


# -------------------------------------------------------------------------------------------------------------- proofs

LEAVES = [b"a", b"b", b"c", b"d", b"e"]
EDGE, MADE = Edge().append(map(leaf_hash, LEAVES))
NODES = dict(MADE)


def proof_file(index: int) -> bytes:
    path = merkle.proof_of(merkle.inclusion_ranges(index, len(LEAVES)), NODES.__getitem__)
    return tlog.write_proof(index, path, signed(head_of(len(LEAVES), EDGE.root), LOG))


@pytest.mark.parametrize("index", range(len(LEAVES)))
def test_proof_file_proves_its_leaf_and_no_other(index: int) -> None:
    data = proof_file(index)
    proof = tlog.read_proof(data, ORIGIN)

    proof.verify(LEAVES[index])
    assert proof.note.verified([LOG.key]) == {LOG.key: None}
    assert tlog.write_proof(proof.index, list(proof.hashes), proof.note.encoded()) == data
    with pytest.raises(ProofInvalid, match="other_root"):
        proof.verify(LEAVES[index - 1])


@pytest.mark.parametrize(
    "change",
    [
        (b"@v1", b"@v2"),
        (b"index 1", b"index 01"),
        (b"index 1", b"extra AAAA\nindex 1"),
        (b"=\n", b"\n"),
        (b"\n\n", b"\n"),
        (b"index", b"ind\xff"),
    ],
)
def test_what_is_no_proof_file_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises((tlog.TlogProofUnreadable, tlog.NoteInvalid)):
        tlog.read_proof(proof_file(1).replace(*change, 1), ORIGIN)


# ----------------------------------------------------------------------------------------------------------- witnesses


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_request_to_a_witness_comes_back(old: int, proof: list[bytes]) -> None:
    request = tlog.AddCheckpoint(old, tuple(proof), GOOD.encode())
    assert tlog.read_request(request.encoded()) == request


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"old 1\n",
        b"old 01\n\n" + GOOD.encode(),
        b"old x\n\n" + GOOD.encode(),
        b"old 1\nAAAA\n\n" + GOOD.encode(),
        b"old 1\n!\n\n" + GOOD.encode(),
        b"old 1\n" + b"A" * 42 + b"B=\n\n" + GOOD.encode(),
        b"old \xff\n\n",
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + GOOD.encode(),
        b"old 1\n\n" + b"a" * 65_536,
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(tlog.NoteInvalid, match="bad_request"):
        tlog.read_request(data)


@given(st.binary(max_size=400))
def test_random_bytes_raise_only_what_is_named(data: bytes) -> None:
    for read in (tlog.read_note, tlog.read_proof, tlog.read_request, tlog.read_signed_head):
        for told in (data, proof_file(1)[: len(data)] + data, GOOD.encode()[: len(data)] + data):
            with suppress(ReceiptError):  # any other error fails this test
                read(told)
