"""The entries of a receipt: a whole run, or those of one step or grant, which are proven by their place in the log.

A part says nothing of what it leaves out: only a receipt of the run shows that none of its entries is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepgrant._receipt_entries import Event, read_event
from stepgrant._receipt_errors import ChainBroken, EntryInvalid, ReceiptUnreadable
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode


def entry_bytes(entries: JsonValue) -> Iterator[bytes]:
    """The exact bytes of each entry. Raises `ReceiptUnreadable`, `EntryInvalid`."""
    if not isinstance(entries, list) or not entries:
        raise ReceiptUnreadable("there are no entries", reason="no_entries")
    for position, text in enumerate(entries):
        try:
            yield b64u_decode(text) if isinstance(text, str) else b""
        except CanonicalError:
            raise EntryInvalid("not base64url in its one form", reason="entry_unreadable", position=position) from None


def belongs(event: Event, scope: tuple[str, str]) -> bool:
    """Whether an entry is about this (kind, id): a run, a step with what is inside of it, or a grant."""
    kind, name = scope
    if kind == "grant":
        return event.part("grant").get("jti") == name
    if kind == "step":
        return event.step is not None and (event.step == name or event.step.startswith(f"{name}~"))
    return True


def some_events(entries: JsonValue, tenant: str, run: str, scope: tuple[str, str]) -> tuple[Event, ...]:
    """The entries of a step or grant, in order. Raises `ChainBroken`, `EntryInvalid`, `ReceiptUnreadable`."""
    events: list[Event] = []
    for position, data in enumerate(entry_bytes(entries)):
        event = read_event(data, position)
        if event.fields["tenant"] != tenant or event.fields["run"] != run or not belongs(event, scope):
            raise ChainBroken(
                "an entry of another tenant, run, step or grant", reason="entry_foreign", position=position
            )
        before = events[-1] if events else None
        if before is not None and event.seq <= before.seq:
            raise ChainBroken(f"its seq is {event.seq}", reason="entry_out_of_order", position=position)
        if before is not None and event.seq == before.seq + 1 and event.fields["prev"] != before.hash:
            raise ChainBroken("the hash of the entry before it is another", reason="wrong_hash", position=position)
        events.append(event)
    return tuple(events)
