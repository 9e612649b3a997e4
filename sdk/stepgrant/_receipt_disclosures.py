"""Disclosed values: each is the one that its entry committed to when it was written (`c = HMAC-SHA-256(r, value)`)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from stepgrant._receipt_entries import Event, commitments, names
from stepgrant._receipt_errors import DisclosureInvalid, ReceiptUnreadable
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode, digest_bytes, dumps, loads

_DISCLOSURE: Final = frozenset({"c", "field", "r", "value"})


def disclose(disclosures: JsonValue, events: tuple[Event, ...]) -> tuple[tuple[Event, ...], int, int]:
    """The events with their disclosed values, how many values are disclosed, and how many commitments stay closed."""
    if not isinstance(disclosures, list):
        raise ReceiptUnreadable("disclosures is not an array", reason="wrong_members")
    places: dict[str, set[str]] = {}
    for event in events:
        for place, c in commitments(event):
            places.setdefault(c, set()).add(place)
    opened: dict[str, tuple[str, Mapping[str, JsonValue]]] = {}
    last = ""
    for index, item in enumerate(disclosures):
        c, name, disclosure = _open(item, index, places)
        if c <= last:
            raise DisclosureInvalid(f"disclosure {index}: not in order of c, each once", reason="disclosure_order")
        last = c
        opened[c] = (name, disclosure)
    return tuple(_shown(event, opened) for event in events), len(opened), len(places) - len(opened)


def _open(item: JsonValue, index: int, places: Mapping[str, set[str]]) -> tuple[str, str, Mapping[str, JsonValue]]:
    if not isinstance(item, dict) or not _DISCLOSURE <= item.keys() <= _DISCLOSURE | {"preimage"}:
        raise DisclosureInvalid(f"disclosure {index}: not c, field, r, value", reason="disclosure_malformed")
    c, name, r = item["c"], item["field"], item["r"]
    if not isinstance(c, str) or not isinstance(name, str) or not isinstance(r, str):
        raise DisclosureInvalid(f"disclosure {index}: c, field and r are texts", reason="disclosure_malformed")
    if c not in places:
        raise DisclosureInvalid(f"disclosure {index}: no entry commits to it", reason="disclosure_foreign")
    if not all(names(place, name) for place in places[c]):
        raise DisclosureInvalid(f"disclosure {index}: the entry has another field there", reason="disclosure_misnamed")
    try:
        opens = hmac.compare_digest(hmac.digest(b64u_decode(r), dumps(item["value"]), hashlib.sha256), b64u_decode(c))
    except CanonicalError:
        raise DisclosureInvalid(f"disclosure {index}: not base64url", reason="disclosure_malformed") from None
    if not opens:
        raise DisclosureInvalid(
            f"disclosure {index} ({name}): not the value that was committed to", reason="wrong_value"
        )
    if "preimage" in item:
        item = {**item, "preimage": _preimage(item["preimage"], item["value"], f"disclosure {index} ({name})")}
    return c, name, item


def _preimage(text: JsonValue, expected: JsonValue, where: str) -> JsonValue:
    """The JSON value in the bytes that the disclosed digest is of."""
    try:
        data = b64u_decode(text) if isinstance(text, str) else b""
        value = loads(data)
    except CanonicalError as error:
        raise DisclosureInvalid(
            f"{where}: its preimage cannot be read ({error.code})", reason="wrong_preimage"
        ) from None
    if digest_bytes(data) != expected:
        raise DisclosureInvalid(f"{where}: not what its digest is of", reason="wrong_preimage")
    return value


def _shown(event: Event, opened: Mapping[str, tuple[str, Mapping[str, JsonValue]]]) -> Event:
    values: dict[str, JsonValue] = {}
    preimages: dict[str, JsonValue] = {}
    for _, c in commitments(event):
        if c in opened:
            name, disclosure = opened[c]
            values[name] = disclosure["value"]
            if "preimage" in disclosure:
                preimages[name] = disclosure["preimage"]
    return replace(event, disclosed=values, preimages=preimages) if values else event
