"""The entries of a receipt: a whole run, or those of one step or grant, which are proven by their place in the log.

Rules:
* A step has its own entries and those of what is inside of it (`key~...`).
* A grant has its own entries and what it rests on: of its step, before it was issued, the preparation and the decisions
  of its attempt, and the approval that it spent, with its answers.
* Each has the entry of the erasure, or nobody could tell why it shows no values.
* A part says nothing of what it leaves out: only a receipt of the run shows that none of its entries is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from stepgrant._receipt_entries import Event, read_event
from stepgrant._receipt_errors import ChainBroken, EntryInvalid, ReceiptUnreadable
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode

_DECIDED: Final = frozenset({"step_prepared", "decision"})
_APPROVAL: Final = frozenset({"approval_requested", "approval_decided"})


def entry_bytes(entries: JsonValue) -> Iterator[bytes]:
    """The exact bytes of each entry. Raises `ReceiptUnreadable`, `EntryInvalid`."""
    if not isinstance(entries, list) or not entries:
        raise ReceiptUnreadable("there are no entries", reason="no_entries")
    for position, text in enumerate(entries):
        try:
            yield b64u_decode(text) if isinstance(text, str) else b""
        except CanonicalError:
            raise EntryInvalid("not base64url in its one form", reason="entry_unreadable", position=position) from None


def part_of(events: Sequence[Event], scope: tuple[str, str]) -> Callable[[Event], bool]:
    """Whether an entry is about this (kind, id), and what it rests on. `events`: in their order, all or the part."""
    kind, name = scope
    if kind == "run":
        return lambda _: True
    if kind == "step":
        return lambda event: _erases(event) or _is_step(event, name)
    issued = next((event for event in events if event.type == "grant_issued" and _is_grant(event, name)), None)
    return lambda event: (
        _erases(event) or _is_grant(event, name) or (issued is not None and _behind(event, issued))
    )  # fmt: skip


def is_about(event: Event, scope: tuple[str, str]) -> bool:
    """Whether it is an entry of the step or grant itself: without one there is nothing to make a receipt of."""
    kind, name = scope
    return kind == "run" or (_is_grant(event, name) if kind == "grant" else _is_step(event, name))


def _is_grant(event: Event, jti: str) -> bool:
    return event.part("grant").get("jti") == jti


def _is_step(event: Event, key: str) -> bool:
    return event.step is not None and (event.step == key or event.step.startswith(f"{key}~"))


def _erases(event: Event) -> bool:
    return event.type == "run_erased"


def _behind(event: Event, issued: Event) -> bool:
    """Whether the grant rests on this entry."""
    if event.step != issued.step or event.seq > issued.seq:
        return False
    if event.type in _APPROVAL:
        return event.part("approval").get("id") == issued.part("approval").get("id", "")
    return event.type in _DECIDED and event.attempt == issued.attempt


def some_events(entries: JsonValue, tenant: str, run: str, scope: tuple[str, str]) -> tuple[Event, ...]:
    """The entries of a step or grant, in order. Raises `ChainBroken`, `EntryInvalid`, `ReceiptUnreadable`."""
    events = [read_event(data, position) for position, data in enumerate(entry_bytes(entries))]
    belongs = part_of(events, scope)
    for position, event in enumerate(events):
        if event.fields["tenant"] != tenant or event.fields["run"] != run or not belongs(event):
            raise ChainBroken(
                "an entry of another tenant, run, step or grant", reason="entry_foreign", position=position
            )
        before = events[position - 1] if position else None
        if before is not None and event.seq <= before.seq:
            raise ChainBroken(f"its seq is {event.seq}", reason="entry_out_of_order", position=position)
        if before is not None and event.ts < before.ts:
            raise ChainBroken("its time is before that of an earlier entry", reason="time_goes_back", position=position)
        if before is not None and event.seq == before.seq + 1 and event.fields["prev"] != before.hash:
            raise ChainBroken("the hash of the entry before it is another", reason="wrong_hash", position=position)
    if not any(is_about(event, scope) for event in events):
        raise ChainBroken(f"no entry is of this {scope[0]}", reason="entry_foreign", position=0)
    return tuple(events)
