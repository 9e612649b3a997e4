"""Entries of format v1 as a stranger reads them: exact bytes, chained, each strictly canonical (`protocol.md` §6).

Rules:
* Nothing is believed that was not checked: an entry's bytes must be the RFC 8785 bytes of what they say.
* New types and new members may join v1, so one that is not known here is hashed like all others and reported.
* Where a commitment (`…_c`) stands says which field it is about; a disclosure under another name is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stepgrant._receipt_errors import ChainBroken, EntryInvalid
from stepgrant.canonical import CanonicalError, JsonValue, b64u, dumps, loads

VERSION: Final = 1
GENESIS: Final = b64u(bytes(32))
MAX_ENTRY_BYTES: Final = 1_048_576

TYPES: Final = frozenset({
    "run_opened", "run_resumed", "run_parked", "run_quarantined", "run_released", "run_ended", "run_erased",
    "step_prepared", "decision", "approval_requested", "approval_decided", "grant_issued", "grant_failed",
    "lease_recorded", "grant_redeemed", "grant_revoked", "step_recorded", "step_replayed", "step_adopted",
    "step_completed", "step_failed", "step_suspended", "step_in_doubt", "step_reconciled", "workload_enrolled",
    "policy_activated", "key_rotated", "key_revoked", "store_restored", "run_restored", "operator_action",
    "duplicate_decided",
})  # fmt: skip
MEMBERS: Final = frozenset({
    "v", "tenant", "run", "seq", "ts", "type", "step", "attempt", "epoch", "prev", "salt", "by", "agent", "mode",
    "action", "decision", "body",
})  # fmt: skip
"""What every entry has; optional members may come on top."""

PLACES: Final[Mapping[tuple[str, ...], str]] = {
    ("principal_c",): "principal",
    ("by", "subject_c"): "by.subject",
    ("action", "resource_c"): "action.resource",
    ("action", "digest_c"): "action.digest",
    ("decision", "input_c"): "decision.input",
    ("outcome", "result_c"): "outcome.result",
}
BODY_PLACES: Final[Mapping[tuple[str, str], str]] = {
    ("run_opened", "input_c"): "run.input",
    ("run_parked", "detail_c"): "park.detail",
    ("approval_requested", "binding_c"): "approval.binding",
    ("approval_decided", "note_c"): "approval.note",
    ("step_failed", "error_c"): "outcome.error",
    ("step_reconciled", "evidence_c"): "reconcile.evidence",
    ("duplicate_decided", "note_c"): "duplicate.note",
    ("key_revoked", "note_c"): "key.note",
    ("store_restored", "note_c"): "restored.note",
}


def _is_whole(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


def _is_object(value: JsonValue) -> bool:
    return isinstance(value, dict)


def _or_null(check: Callable[[JsonValue], bool]) -> Callable[[JsonValue], bool]:
    return lambda value: value is None or check(value)


_SHAPES: Final[Mapping[str, Callable[[JsonValue], bool]]] = {
    **dict.fromkeys(("v", "seq", "ts"), _is_whole),
    **dict.fromkeys(("attempt", "epoch"), _or_null(_is_whole)),
    **dict.fromkeys(("tenant", "type", "prev", "salt", "mode"), _is_text),
    **dict.fromkeys(("run", "step", "cause", "principal_c"), _or_null(_is_text)),
    **dict.fromkeys(("by", "body"), _is_object),
    **dict.fromkeys(("agent", "action", "decision", "approval", "grant", "outcome"), _or_null(_is_object)),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One entry, read. Times in ms since the epoch. `disclosed` and `preimages` are by field, e.g. `action.resource`.

    `fields` are all members as they stand in the entry, for what has no attribute of its own.
    """

    seq: int
    ts: int
    type: str
    step: str | None
    attempt: int | None
    epoch: int | None
    hash: str
    fields: Mapping[str, JsonValue] = field(repr=False)
    disclosed: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)
    preimages: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)

    @property
    def known(self) -> bool:
        """False for a type that this version of the library does not know."""
        return self.type in TYPES

    def part(self, name: str) -> Mapping[str, JsonValue]:
        """A member that is an object (`by`, `action`, `grant`, ...); empty where it does not apply."""
        value = self.fields.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def cause(self) -> str | None:
        """Why it happened, where the entry says so."""
        value = self.fields.get("cause")
        return value if isinstance(value, str) else None


def has_ended(events: Sequence[Event]) -> bool:
    """True if the run has ended.

    Nothing may follow but an issuer's word that what was taken back is dead, and the erasure.
    """
    for event in reversed(events):
        confirms = event.type == "grant_revoked" and event.part("body").get("confirmed") is True
        if not confirms and event.type != "run_erased":
            return event.type == "run_ended"
    return False


def read_event(data: bytes, position: int | None = None) -> Event:
    """Read one entry's bytes. Raises `EntryInvalid`."""
    try:
        fields = loads(data, max_bytes=MAX_ENTRY_BYTES)
        canonical = isinstance(fields, dict) and dumps(fields) == data
    except CanonicalError as error:
        raise EntryInvalid(f"not strict JSON ({error.code})", reason="entry_unreadable", position=position) from None
    if not isinstance(fields, dict) or not canonical:
        raise EntryInvalid("not the canonical bytes of an object", reason="entry_not_canonical", position=position)
    wrong = _malformed(fields)
    if wrong is not None:
        raise EntryInvalid(f"{wrong} is missing or of the wrong type", reason="entry_malformed", position=position)
    if fields["v"] != VERSION:
        raise EntryInvalid("this version of entries is not known here", reason="entry_version", position=position)
    return Event(
        seq=_whole(fields["seq"]),
        ts=_whole(fields["ts"]),
        type=str(fields["type"]),
        step=_text(fields["step"]),
        attempt=None if fields["attempt"] is None else _whole(fields["attempt"]),
        epoch=None if fields["epoch"] is None else _whole(fields["epoch"]),
        hash=b64u(hashlib.sha256(data).digest()),
        fields=fields,
    )


def _malformed(fields: Mapping[str, JsonValue]) -> str | None:
    """The first member that is not as v1 has it, or `None`."""
    for name, is_right in _SHAPES.items():
        if (name in MEMBERS and name not in fields) or not is_right(fields.get(name)):
            return name
    return None


def _whole(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def check_link(event: Event, before: Event | None, *, tenant: str, run: str | None, position: int) -> None:
    """Refuse an entry that does not follow the one before it in this chain. Raises `ChainBroken`."""
    if event.fields["tenant"] != tenant or event.fields["run"] != run:
        raise ChainBroken("an entry of another tenant or run", reason="entry_foreign", position=position)
    if event.seq != position:
        raise ChainBroken(f"its seq is {event.seq}", reason="entry_out_of_order", position=position)
    if event.fields["prev"] != (GENESIS if before is None else before.hash):
        raise ChainBroken("the hash of the entry before it is another", reason="wrong_hash", position=position)
    if before is not None and event.ts < before.ts:
        raise ChainBroken("its time is before that of the entry before it", reason="time_goes_back", position=position)


def commitments(event: Event) -> Iterator[tuple[str, str]]:
    """All commitments of an entry as (field, commitment).

    A place that is not known here names its field by its last part only: `…_c` in `body` gives `*.…`.
    """
    for name, value in event.fields.items():
        if name.endswith("_c") and isinstance(value, str):
            yield PLACES.get((name,), "*." + name[:-2]), value
        elif isinstance(value, dict):
            for inner, c in value.items():
                if inner.endswith("_c") and isinstance(c, str):
                    yield _field(event.type, name, inner), c


def _field(kind: str, part: str, name: str) -> str:
    known = BODY_PLACES.get((kind, name)) if part == "body" else PLACES.get((part, name))
    return known or "*." + name[:-2]


def names(place: str, claimed: str) -> bool:
    """True when a disclosure may call the field of this place `claimed`."""
    if place.startswith("*."):
        return claimed == place[2:] or claimed.endswith(place[1:])
    return claimed == place
