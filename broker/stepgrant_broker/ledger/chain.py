"""Walking one chain from its first entry, page by page, with nothing believed that its bytes do not prove.

A broken link is reported once, at the entry whose bytes are not those that the next one was chained to; from there on
the chain cannot be folded, because what follows builds on entries that are not the ones that were recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from stepgrant import canonical
from stepgrant._receipt_entries import TYPES, check_link, read_event
from stepgrant._receipt_errors import ChainBroken, EntryInvalid
from stepgrant_broker.domain.entries import Entry, EntryMalformed, EntryType, check_members
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.findings import Code, Finding

if TYPE_CHECKING:
    from stepgrant._receipt_entries import Event
    from stepgrant_broker.domain.reads import Reads, StoredEntry

PAGE: Final = 500


async def walk(
    reads: Reads, tenant: str, run: str | None, *, stop: int | None = None
) -> AsyncIterator[tuple[Entry, Event, int | None]]:
    """The chain's entries in order, each checked, with its leaf index.

    Raises `Broken` with its finding at the first that does not hold.

    `stop`: how many entries to read at most (the chain may be growing).
    """
    before: Event | None = None
    seq = 0
    while stop is None or seq < stop:
        limit = PAGE if stop is None else min(PAGE, stop - seq)
        page = await reads.entries(tenant, run, after=seq - 1, limit=limit)
        if not page:
            return
        for stored in page:
            before = _checked(stored, before, tenant, run, seq)
            yield _entry(stored, before, tenant, run), before, stored.leaf_index
            seq += 1


class Broken(Exception):
    """The chain does not hold; `finding` says where."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def _broken(code: Code, tenant: str, run: str | None, seq: int, what: str) -> Broken:
    return Broken(Finding(code, findings.entry(tenant, run, seq), what, seq))


def _checked(stored: StoredEntry, before: Event | None, tenant: str, run: str | None, seq: int) -> Event:
    if stored.seq != seq:
        raise _broken(Code.ENTRY_MISSING, tenant, run, seq, f"entries {seq} to {stored.seq - 1} are gone")
    try:
        event = read_event(stored.data, seq)
    except EntryInvalid as error:
        raise _broken(Code.ENTRY_UNREADABLE, tenant, run, seq, error.reason) from None
    try:
        check_link(event, before, tenant=tenant, run=run, position=seq)
    except ChainBroken as error:
        if error.reason == "wrong_hash" and before is not None:
            what = "its bytes are not those that the next entry was chained to"
            raise _broken(Code.ENTRY_CHANGED, tenant, run, seq - 1, what) from None
        raise _broken(Code.ENTRY_CHANGED, tenant, run, seq, error.reason) from None
    return event


def _entry(stored: StoredEntry, event: Event, tenant: str, run: str | None) -> Entry:
    if event.type not in TYPES:
        raise _broken(Code.ENTRY_UNREADABLE, tenant, run, event.seq, f"type {event.type} is not known here")
    try:
        check_members(event.fields)
    except EntryMalformed as error:
        raise _broken(Code.ENTRY_UNREADABLE, tenant, run, event.seq, str(error)) from None
    digest = canonical.b64u_decode(event.hash)
    kind = EntryType(event.type)
    return Entry(tenant, run, event.seq, event.ts, kind, event.step, digest, event.hash, stored.data, event.fields)


def unfoldable(entry: Entry, error: Exception) -> Broken:
    """An entry that is chained rightly but says what cannot have happened: the whole chain was rewritten."""
    what = f"{entry.type.value} does not follow from the entries before it ({type(error).__name__})"
    return _broken(Code.ENTRY_UNFOLDABLE, entry.tenant, entry.run, entry.seq, what)


UNFOLDABLE: Final = (LookupError, ValueError, TypeError, AttributeError)
"""What folding an impossible entry raises; domain code has no other way to fail."""
