"""Receipts that are almost right: whoever has no key of the broker gets none through, and all errors are named ones.

A receipt is changed as a document (members, values, entries moved, doubled, cut), in one of its entries, or as bytes.
Unsigned: the head's signature is the true one, so every change must be refused. Signed: the broker's own key signed the
changed head (a compromised broker); then it may verify or not, but nothing foreign may be raised.
"""

from __future__ import annotations

import base64
import copy
import json
import random
from collections import Counter
from typing import Any, Final

from forging import b64
from receipts import Book, finished, jcs, sha
from security.fuzz import odd_json
from soak.result import Result
from stepgrant import receipt
from stepgrant.errors import ReceiptError

ODD: Final[tuple[object, ...]] = (
    "run_ended",
    "run_opened",
    "step_completed",
    "acme",
    "run_01",
    -1,
    0,
    7,
    2**53,
    b64(bytes(32)),
    [],
    {},
    None,
)


def _entry(rng: random.Random, value: dict[str, Any]) -> None:
    """One entry says something else; its text may be none."""
    entries = value["entries"]
    at = rng.randrange(len(entries))
    fields = json.loads(base64.urlsafe_b64decode(entries[at] + "=="))
    changed = odd_json.changed(rng, fields, ODD)
    entries[at] = b64(jcs(changed) if rng.random() < 0.6 else odd_json.text(rng, changed))
    if rng.random() < 0.5:  # and those after it are chained to it
        for later in range(at + 1, len(entries)):
            before = base64.urlsafe_b64decode(entries[later - 1] + "==")
            fields = json.loads(base64.urlsafe_b64decode(entries[later] + "=="))
            entries[later] = b64(jcs({**fields, "prev": b64(sha(before))}))
        if isinstance(value.get("head"), dict):
            value["head"]["hash"] = b64(sha(base64.urlsafe_b64decode(entries[-1] + "==")))


def _changed(rng: random.Random, value: dict[str, Any]) -> None:
    if rng.random() < 0.5:
        _entry(rng, value)
        return
    name = rng.choice(sorted(value))
    value[name] = odd_json.changed(rng, value[name], ODD)


def _made(rng: random.Random, book: Book, true: dict[str, Any], *, signed: bool) -> bytes:
    """The bytes of one changed receipt."""
    if not signed:
        value = copy.deepcopy(true)
        _changed(rng, value)
        return jcs(value) if rng.random() < 0.7 else odd_json.text(rng, value)

    def change(value: dict[str, Any]) -> None:
        _changed(rng, value)
        if not isinstance(value.get("head"), dict):
            value["head"] = {"hash": "x"}

    return jcs(book.receipt(change))


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` receipts, every third signed by the broker's own key."""
    rng = random.Random(seed)
    book = finished()
    true = book.receipt()
    counts: Counter[str] = Counter({"receipts": size})
    found: list[str] = []
    for number in range(size):
        signed = number % 3 == 0
        raw = _made(rng, book, true, signed=signed)
        same = not signed and raw == jcs(true)
        try:
            receipt.verify(raw, book.jwks)
        except ReceiptError as error:
            counts[type(error).__name__] += 1
            if same:
                found.append(f"the true one was refused: {error}")
        except Exception as error:  # noqa: BLE001 - a foreign error is what is looked for
            found.append(f"{type(error).__name__} ({error}) for {raw[:3000]!r}")
        else:
            counts["verified, signed" if signed else "verified, unchanged"] += 1
            if not signed and _differs(raw, true):
                found.append(f"verified without the key: {raw[:3000]!r}")
    return Result(dict(counts), found[:20])


def _differs(raw: bytes, true: dict[str, Any]) -> bool:
    """Whether it says anything else. To disclose less is everybody's right."""
    value = json.loads(raw)
    disclosed = value.pop("disclosures")
    known = {one["c"]: one for one in true["disclosures"]}
    rest = {name: member for name, member in true.items() if name != "disclosures"}
    return jcs(value) != jcs(rest) or any(not one.items() <= known[one["c"]].items() for one in disclosed)
