"""Receipts under random changes: none gets through, and rubbish raises nothing foreign."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import Book, finished, jcs
from stepgrant import receipt
from stepgrant.canonical import CanonicalError, dumps
from stepgrant.errors import ReceiptError

BOOK = finished()
GOOD = BOOK.receipt()
GOOD_BYTES = jcs(GOOD)
KEYS = BOOK.jwks


# ----------------------------------------------------------------------------------------------------------- at random


@given(st.integers(0, len(GOOD_BYTES) - 1), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_found(position: int, flip: int) -> None:
    changed = bytearray(GOOD_BYTES)
    changed[position] ^= flip
    with pytest.raises(ReceiptError):
        receipt.verify(bytes(changed), KEYS)


def test_each_byte_matters() -> None:
    for position in range(0, len(GOOD_BYTES), 7):
        changed = bytearray(GOOD_BYTES)
        changed[position] ^= 1
        with pytest.raises(ReceiptError):
            receipt.verify(bytes(changed), KEYS)


@given(st.data())
def test_entries_removed_doubled_or_moved_are_found(data: st.DataObject) -> None:
    entries = list(GOOD["entries"])
    first, second = (data.draw(st.integers(0, len(entries) - 1)) for _ in range(2))
    match data.draw(st.sampled_from(["remove", "double", "swap", "cut"])):
        case "remove":
            del entries[first]
        case "double":
            entries.insert(first, entries[first])
        case "swap" if first != second:
            entries[first], entries[second] = entries[second], entries[first]
        case _:
            del entries[max(1, first) :]
    with pytest.raises(ReceiptError):
        receipt.verify({**GOOD, "entries": entries}, KEYS)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_foreign(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        receipt.verify(data, KEYS)
    with pytest.raises(ReceiptError):
        receipt.read_event(data)
    with pytest.raises(ReceiptError):
        receipt.verify(GOOD, data)


json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    ("v",), ("kind",), ("tenant",), ("run",), ("entries",), ("entries", 0), ("disclosures",), ("disclosures", 0),
    ("disclosures", 0, "c"), ("disclosures", 0, "field"), ("disclosures", 0, "r"), ("disclosures", 0, "value"),
    ("head",), ("head", "seq"), ("head", "hash"), ("head", "ts"), ("head", "signature"), ("head", "signature", "kid"),
    ("head", "signature", "alg"), ("head", "signature", "value"), ("complete",),
]  # fmt: skip


@given(st.sampled_from(PATHS), json_values)
def test_any_other_value_anywhere_is_found(path: tuple[Any, ...], value: object) -> None:
    changed = copy.deepcopy(GOOD)
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    if place[path[-1]] == value and type(place[path[-1]]) is type(value):
        return
    if path == ("disclosures",) and value == []:
        return  # nothing disclosed is a right receipt
    place[path[-1]] = value
    with pytest.raises(ReceiptError):
        receipt.verify(changed, KEYS)


@given(st.sampled_from(["by", "action", "decision", "grant", "outcome", "body", "cause", "agent"]), json_values)
def test_entries_with_any_value_in_a_member_raise_nothing_foreign(name: str, value: object) -> None:
    book = Book()
    book.add("run_opened")
    text = json.loads(book.entries[0])
    text[name] = value
    try:
        event = receipt.read_event(receipt_bytes(text))
    except ReceiptError:
        return
    assert event.fields[name] == value


def receipt_bytes(value: object) -> bytes:
    try:
        return dumps(value)  # type: ignore[arg-type]  # anything, on purpose
    except CanonicalError:
        return b""
