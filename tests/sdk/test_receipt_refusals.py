"""Receipts that do not hold: each fault by its name and place."""

from __future__ import annotations

import copy
import json
from itertools import count
from typing import Any

import pytest

from forging import b64, eddsa
from receipts import START, Book, Change, finished, jcs
from stepgrant import receipt
from stepgrant._receipt_keys import Keys
from stepgrant.errors import ReceiptError

BOOK = finished()
GOOD = BOOK.receipt()
GOOD_BYTES = jcs(GOOD)
KEYS = BOOK.jwks


def refused(value: dict[str, Any] | bytes, reason: str, kind: type[ReceiptError], keys: Keys = KEYS) -> ReceiptError:
    with pytest.raises(kind) as caught:
        receipt.verify(value, keys)
    assert caught.value.reason == reason
    return caught.value


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(v=3), "wrong_version"),
        (lambda v: v.update(v=True), "wrong_version"),
        (lambda v: v.update(kind="receipt"), "wrong_version"),
        (lambda v: v.update(extra=1), "wrong_members"),
        (lambda v: v.pop("complete"), "wrong_members"),
        (lambda v: v.update(tenant=1), "wrong_members"),
        (lambda v: v.update(entries=[]), "no_entries"),
        (lambda v: v.update(entries="x"), "no_entries"),
        (lambda v: v.update(disclosures={}), "wrong_members"),
        (lambda v: v.update(complete=False), "wrong_complete"),
        (lambda v: v.update(complete=1), "wrong_complete"),
    ],
    ids=count(),
)
def test_a_wrong_shape_is_named(change: Change, reason: str) -> None:
    refused(BOOK.receipt(change, sign=False), reason, receipt.ReceiptUnreadable)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_json"),
        (GOOD_BYTES + b"\n", "not_canonical"),
        (json.dumps(GOOD, indent=1).encode(), "not_canonical"),
        (GOOD_BYTES[:-1] + b',"v":1}', "not_json"),
        (b"[]", "wrong_members"),
    ],
    ids=count(),
)
def test_it_has_one_text_only(text: bytes, reason: str) -> None:
    refused(text, reason, receipt.ReceiptUnreadable)


def test_what_is_not_json_at_all_is_refused_as_a_value_too() -> None:
    refused({**GOOD, "tenant": object()}, "not_json", receipt.ReceiptUnreadable)


def entry(**members: object) -> Book:
    book = Book()
    book.add("run_opened")
    book.add("run_ended", **members)
    return book


@pytest.mark.parametrize(
    ("members", "reason", "kind"),
    [
        ({"seq": 2}, "entry_out_of_order", receipt.ChainBroken),
        ({"prev": b64(bytes(32))}, "wrong_hash", receipt.ChainBroken),
        ({"tenant": "other"}, "entry_foreign", receipt.ChainBroken),
        ({"run": "run_02"}, "entry_foreign", receipt.ChainBroken),
        ({"run": None}, "entry_foreign", receipt.ChainBroken),
        ({"ts": START - 1}, "time_goes_back", receipt.ChainBroken),
        ({"v": 2}, "entry_version", receipt.EntryInvalid),
        ({"ts": "now"}, "entry_malformed", receipt.EntryInvalid),
        ({"seq": True}, "entry_malformed", receipt.EntryInvalid),
        ({"by": None}, "entry_malformed", receipt.EntryInvalid),
        ({"action": []}, "entry_malformed", receipt.EntryInvalid),
        ({"epoch": -1}, "entry_malformed", receipt.EntryInvalid),
        ({"principal_c": 1}, "entry_malformed", receipt.EntryInvalid),
    ],
    ids=count(),
)
def test_an_entry_that_does_not_fit_is_named_with_its_place(
    members: dict[str, Any], reason: str, kind: type[ReceiptError]
) -> None:
    book = entry(**members)
    assert refused(book.receipt(), reason, kind, book.jwks).position == 1


@pytest.mark.parametrize("missing", ["salt", "mode", "prev", "body", "step"])
def test_an_entry_without_a_member_is_refused(missing: str) -> None:
    book = entry()
    members = json.loads(book.entries[1])
    del members[missing]
    book.entries[1] = jcs(members)
    assert refused(book.receipt(), "entry_malformed", receipt.EntryInvalid, book.jwks).position == 1


def test_an_entry_in_another_form_is_refused() -> None:
    book = entry()
    book.entries[1] = json.dumps(json.loads(book.entries[1])).encode()
    refused(book.receipt(), "entry_not_canonical", receipt.EntryInvalid, book.jwks)
    book.entries[1] = b"[]"
    with pytest.raises(TypeError):
        book.receipt()  # the forger itself cannot speak of such an entry
    good = entry().receipt()
    good["entries"][1] = b64(b"[]")
    refused(good, "entry_not_canonical", receipt.EntryInvalid, book.jwks)
    good["entries"][1] = "a==="
    refused(good, "entry_unreadable", receipt.EntryInvalid, book.jwks)
    good["entries"][1] = 5
    refused(good, "entry_unreadable", receipt.EntryInvalid, book.jwks)


def test_it_begins_where_the_run_begins() -> None:
    book = Book()
    book.add("step_prepared")
    assert refused(book.receipt(), "not_from_the_start", receipt.ChainBroken, book.jwks).position == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(seq=6), "head_foreign"),
        (lambda h: h.update(run="run_02"), "head_foreign"),
        (lambda h: h.update(tenant="other"), "head_foreign"),
        (lambda h: h.update(hash=b64(bytes(32))), "wrong_head"),
        (lambda h: h.update(ts=START), "time_goes_back"),
    ],
    ids=count(),
)
def test_a_signed_head_must_be_about_these_entries(change: Change, reason: str) -> None:
    refused(BOOK.receipt(lambda v: change(v["head"])), reason, receipt.HeadInvalid)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(ts=h["ts"] + 1), "bad_signature"),
        (lambda h: h["signature"].update(value=b64(bytes(64))), "bad_signature"),
        (lambda h: h["signature"].update(value="!"), "bad_signature"),
        (lambda h: h["signature"].update(kid="other"), "unknown_key"),
        (lambda h: h["signature"].update(alg="ES256"), "head_malformed"),
        (lambda h: h["signature"].update(alg="none"), "head_malformed"),
        (lambda h: h["signature"].update(value=1), "head_malformed"),
        (lambda h: h["signature"].update(more=1), "head_malformed"),
        (lambda h: h.pop("signature"), "head_malformed"),
        (lambda h: h.update(ts=True), "head_malformed"),
    ],
    ids=count(),
)
def test_a_head_changed_after_signing_is_refused(change: Change, reason: str) -> None:
    refused(BOOK.receipt(lambda v: change(v["head"]), sign=False), reason, receipt.HeadInvalid)


def test_a_signature_by_another_key_under_the_same_kid_is_refused() -> None:
    refused(finished(eddsa()).receipt(), "bad_signature", receipt.HeadInvalid)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[0].update(value="other"), "wrong_value"),
        (lambda d: d[0].update(r=b64(bytes(32))), "wrong_value"),
        (lambda d: d[0].update(r="*"), "disclosure_malformed"),
        (lambda d: d[0].update(c=b64(bytes(32))), "disclosure_foreign"),
        (lambda d: d[0].update(field="other.name"), "disclosure_misnamed"),
        (lambda d: d[0].update(more=1), "disclosure_malformed"),
        (lambda d: d[0].pop("r"), "disclosure_malformed"),
        (lambda d: d[0].update(field=1), "disclosure_malformed"),
        (lambda d: d.insert(0, "x"), "disclosure_malformed"),
        (lambda d: d.insert(0, copy.deepcopy(d[0])), "disclosure_order"),
        (lambda d: d.reverse(), "disclosure_order"),
    ],
    ids=count(),
)
def test_a_disclosure_must_open_what_an_entry_commits_to(change: Change, reason: str) -> None:
    refused(BOOK.receipt(lambda v: change(v["disclosures"])), reason, receipt.DisclosureInvalid)


@pytest.mark.parametrize("preimage", [b64(b'{"ok":false}'), b64(b"{"), "*", 1, b64(b'{"ok": true}')])
def test_a_preimage_must_be_what_the_digest_is_of(preimage: object) -> None:
    def change(value: dict[str, Any]) -> None:
        next(item for item in value["disclosures"] if item["field"] == "outcome.result")["preimage"] = preimage

    refused(BOOK.receipt(change), "wrong_preimage", receipt.DisclosureInvalid)


def test_a_value_of_one_field_cannot_be_shown_as_another() -> None:
    """`r` does not tell of which field it is, so the place in the entry has to."""

    def swap(value: dict[str, Any]) -> None:
        named = {item["field"]: item for item in value["disclosures"]}
        named["action.resource"]["field"], named["by.subject"]["field"] = "by.subject", "action.resource"

    refused(BOOK.receipt(swap), "disclosure_misnamed", receipt.DisclosureInvalid)
