"""Receipts: what happened in one run, verified offline with nothing but the broker's public key.

    verified = receipt.verify(data, keys)        # raises ReceiptError, or everything below holds

A receipt is RFC 8785 JSON, and has one form only:

    {v: 1, kind: "stepgrant.receipt", tenant, run, entries: [b64u of the exact bytes], complete,
     disclosures: [{c, field, r, value, preimage?}], head: {tenant, run, seq, hash, ts, signature: {kid, alg, value}}}

What holds after `verify`:

* The entries are those of one run, in order, none missing between the first and the head, each byte as it was hashed;
  the head over them was signed (Ed25519) by a key that you trust.
* Each disclosed value is the one that its entry committed to when it was written: `c = HMAC-SHA-256(r, value)`. What is
  not disclosed stays hidden, and nobody can tell a withheld value from another one. Where the value is a digest,
  `preimage` (b64u) may hold the bytes that it is of: arguments, a result, the input of a decision.
* `complete` is true only if the run has ended. After that only issuers' confirmations may come that what was taken back
  is dead.

What a receipt does not prove is in `DOES_NOT_PROVE`; it belongs on every page that shows one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from stepgrant._keys import JoseError, VerifyingKey
from stepgrant._receipt_entries import Event, check_link, commitments, has_ended, names, read_event
from stepgrant._receipt_errors import (
    ChainBroken,
    DisclosureInvalid,
    EntryInvalid,
    HeadInvalid,
    KeysUnreadable,
    ReceiptUnreadable,
)
from stepgrant._receipt_keys import Keys, read_keys
from stepgrant._verification_errors import ReceiptError
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode, digest_bytes, dumps, loads

__all__ = [
    "DOES_NOT_PROVE",
    "ChainBroken",
    "DisclosureInvalid",
    "EntryInvalid",
    "Event",
    "HeadInvalid",
    "KeysUnreadable",
    "ReceiptError",
    "ReceiptUnreadable",
    "Verified",
    "head_bytes",
    "read_event",
    "verify",
]

VERSION: Final = 1
KIND: Final = "stepgrant.receipt"
ALGORITHM: Final = "EdDSA"
MAX_BYTES: Final = 268_435_456

DOES_NOT_PROVE: Final = (
    "that everything was recorded: a broker that was taken over can act and write nothing",
    "that nothing came after the head, unless the run has ended: ask for a newer receipt",
    "that others were shown the same entries: compare with an earlier or another receipt of this run",
    "that the times are right: they are the broker's clock",
    "that a tool did what its result says: a result is what the agent reported",
)

_HEAD_CONTEXT: Final = b"stepgrant run head v1\x00"
_TOP: Final = frozenset({"v", "kind", "tenant", "run", "entries", "disclosures", "head", "complete"})
_HEAD: Final = frozenset({"tenant", "run", "seq", "hash", "ts", "signature"})
_SIGNATURE: Final = frozenset({"kid", "alg", "value"})
_DISCLOSURE: Final = frozenset({"c", "field", "r", "value"})


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt that holds. `head_ts` is when the head was signed (ms). `unknown_types` were hashed, not understood.

    `hidden` counts the commitments of which no value is disclosed.
    """

    tenant: str
    run: str
    complete: bool
    events: tuple[Event, ...]
    head_hash: str
    head_ts: int
    kid: str
    disclosed: int
    hidden: int
    unknown_types: tuple[str, ...]

    def continues(self, earlier: Verified) -> None:
        """Compare with an earlier receipt of the same run. Raises `ChainBroken` (forked) when history was changed."""
        if (earlier.tenant, earlier.run) != (self.tenant, self.run):
            raise ChainBroken("the earlier receipt is of another run", reason="other_run")
        last = len(earlier.events) - 1
        if len(self.events) <= last:
            raise ChainBroken("the earlier receipt has more entries", reason="shorter_than_earlier")
        if self.events[last].hash != earlier.head_hash:
            raise ChainBroken("the earlier receipt has another entry here", reason="forked", position=last)


def verify(receipt: bytes | Mapping[str, JsonValue], keys: Keys) -> Verified:
    """Verify a receipt (its bytes, or as parsed JSON) with a JWKS, a JWK or vkey lines.

    Raises `KeysUnreadable`, `ReceiptUnreadable`, `EntryInvalid`, `ChainBroken`, `HeadInvalid`, `DisclosureInvalid`;
    all are `ReceiptError` with a stable `reason` and, where an entry is to blame, its `position`.
    """
    known = read_keys(keys)
    top = _read(receipt)
    tenant, run = _text(top, "tenant"), _text(top, "run")
    events = _events(top, tenant, run)
    kid, head_ts = _check_head(top, events, known, tenant, run)
    complete = has_ended(events)
    if top["complete"] is not complete:
        raise ReceiptUnreadable("a receipt is complete exactly if its run has ended", reason="wrong_complete")
    events, disclosed, hidden = _disclose(top, events)
    return Verified(
        tenant=tenant,
        run=run,
        complete=complete,
        events=events,
        head_hash=events[-1].hash,
        head_ts=head_ts,
        kid=kid,
        disclosed=disclosed,
        hidden=hidden,
        unknown_types=tuple(sorted({event.type for event in events if not event.known})),
    )


def head_bytes(*, tenant: str, run: str, seq: int, entry_hash: str, ts: int) -> bytes:
    """What is signed for a run's head: `seq` entries, the last with this hash, at `ts` (ms)."""
    head: JsonValue = {"v": VERSION, "tenant": tenant, "run": run, "seq": seq, "hash": entry_hash, "ts": ts}
    return _HEAD_CONTEXT + dumps(head)


# ------------------------------------------------------------------------------------------------------------- parts


def _read(receipt: bytes | Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        data = receipt if isinstance(receipt, bytes) else dumps(receipt)
        top = loads(data, max_bytes=MAX_BYTES)
        canonical = dumps(top) == data
    except CanonicalError as error:
        raise ReceiptUnreadable(f"not strict JSON ({error.code})", reason="not_json") from None
    if not canonical:
        # One receipt has one text: what a reader would skip over (a space, an order) could hide a change.
        raise ReceiptUnreadable(
            "not in canonical form (RFC 8785); keep the file as it was written", reason="not_canonical"
        )
    if not isinstance(top, dict) or top.keys() != _TOP:
        raise ReceiptUnreadable("not the members of a receipt", reason="wrong_members")
    if top["v"] is True or top["v"] != VERSION or top["kind"] != KIND:
        raise ReceiptUnreadable("not a receipt of a version that is known here", reason="wrong_version")
    return top


def _text(top: Mapping[str, JsonValue], name: str) -> str:
    value = top[name]
    if not isinstance(value, str):
        raise ReceiptUnreadable(f"{name} is not text", reason="wrong_members")
    return value


def _events(top: Mapping[str, JsonValue], tenant: str, run: str) -> tuple[Event, ...]:
    entries = top["entries"]
    if not isinstance(entries, list) or not entries:
        raise ReceiptUnreadable("there are no entries", reason="no_entries")
    events: list[Event] = []
    for position, text in enumerate(entries):
        try:
            data = b64u_decode(text) if isinstance(text, str) else b""
        except CanonicalError:
            raise EntryInvalid("not base64url in its one form", reason="entry_unreadable", position=position) from None
        event = read_event(data, position)
        check_link(event, events[-1] if events else None, tenant=tenant, run=run, position=position)
        events.append(event)
    if events[0].type != "run_opened":
        raise ChainBroken("the first entry does not open a run", reason="not_from_the_start", position=0)
    return tuple(events)


def _check_head(
    top: Mapping[str, JsonValue], events: tuple[Event, ...], known: Mapping[str, VerifyingKey], tenant: str, run: str
) -> tuple[str, int]:
    head = top["head"]
    if not isinstance(head, dict) or head.keys() != _HEAD:
        raise HeadInvalid("the head has not its members", reason="head_malformed")
    signature, ts = head["signature"], head["ts"]
    if not isinstance(signature, dict) or signature.keys() != _SIGNATURE or signature["alg"] != ALGORITHM:
        raise HeadInvalid(f"the signature is not {ALGORITHM} with kid and value", reason="head_malformed")
    kid, value = signature["kid"], signature["value"]
    if not isinstance(kid, str) or not isinstance(value, str) or not isinstance(ts, int) or isinstance(ts, bool):
        raise HeadInvalid("the head's members are of the wrong type", reason="head_malformed")
    if (head["tenant"], head["run"], head["seq"]) != (tenant, run, len(events)):
        raise HeadInvalid(f"the head is not about these {len(events)} entries", reason="head_foreign")
    if head["hash"] != events[-1].hash:
        raise HeadInvalid("the head is about other entries", reason="wrong_head", position=len(events) - 1)
    if ts < events[-1].ts:
        raise HeadInvalid("the head was signed before its last entry was written", reason="time_goes_back")
    if kid not in known:
        raise HeadInvalid(f"signed by a key that is not among yours (kid {kid[:64]!r})", reason="unknown_key")
    signed = head_bytes(tenant=tenant, run=run, seq=len(events), entry_hash=events[-1].hash, ts=ts)
    try:
        known[kid].verify(signed, b64u_decode(value))
    except (JoseError, CanonicalError):
        raise HeadInvalid("the signature is not by this key over this head", reason="bad_signature") from None
    return kid, ts


def _disclose(top: Mapping[str, JsonValue], events: tuple[Event, ...]) -> tuple[tuple[Event, ...], int, int]:
    """The events with their disclosed values, how many values are disclosed, and how many commitments stay closed."""
    disclosures = top["disclosures"]
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
