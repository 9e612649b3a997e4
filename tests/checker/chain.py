"""I4: the entries of a chain as they must be: none missing, none twice, each over the one before it, time onwards.

Reading stops at the first entry that does not follow: what comes after it could be anybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from checker.evidence import Broken, Record
from stepgrant.canonical import b64u
from stepgrant.receipt import Event, ReceiptError, read_event


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as far as it can be read, and what is wrong with it. `run` is empty for the tenant's own."""

    tenant: str
    run: str
    events: Sequence[Event]
    broken: Sequence[Broken]


def read_chain(tenant: str, run: str, records: Sequence[Record]) -> Chain:
    """Read one chain; records may come in any order."""
    events: list[Event] = []
    broken: list[Broken] = []
    prev, last = b64u(bytes(32)), 0
    for position, record in enumerate(sorted(records, key=lambda one: one.seq)):
        where = f"entry {record.seq}"
        try:
            event = read_event(record.data, position)
        except ReceiptError as error:
            broken.append(Broken("I4", run, where, str(error)))
            break
        wrong = _wrong(event, record, position, prev, last)
        if wrong:
            broken.append(Broken("I4", run, where, wrong))
            break
        events.append(event)
        prev, last = event.hash, event.ts
    return Chain(tenant, run, events, broken)


def _wrong(event: Event, record: Record, position: int, prev: str, last: int) -> str:
    """Why the entry cannot stand here; empty when it can."""
    if (event.fields["tenant"], event.fields["run"] or "") != (record.tenant, record.chain):
        return "it belongs to another chain"
    if event.seq != position or record.seq != position:
        return f"it says seq {event.seq}, is stored as {record.seq}, and is number {position}"
    if b64u(record.hash) != event.hash:
        return "its stored hash is not that of its bytes"
    if event.fields["prev"] != prev:
        return "the entry before it has another hash"
    return "its time is before that of the entry before it" if event.ts < last else ""
