"""A chain as a stranger gets it over HTTP, page by page: entries with what is disclosed of them, nothing believed.

Rules:
* Each entry must be the canonical bytes that the next one is chained to, and its members those of its type.
* A disclosed value counts only if it opens the commitment in the entry. One that does not is `spoiled`: what rests
  beside the ledger was changed, and the decision cannot be made again from it.
* A value that is not disclosed was erased.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stepgrant import canonical
from stepgrant._receipt_disclosures import disclose
from stepgrant._receipt_entries import Event, check_link, commitments, read_event
from stepgrant._receipt_errors import ChainBroken, DisclosureInvalid, EntryInvalid
from stepgrant_broker.domain.entries import Entry, EntryMalformed, check_members
from stepgrant_broker.domain.replaying import Shown

INPUT: Final = "decision.input"
BINDING: Final = "approval.binding"
UNFOLDABLE: Final = (LookupError, ValueError, TypeError, AttributeError)
"""What folding an entry raises that is chained rightly but says what cannot have happened: the chain was rewritten."""
BROKEN: Final = (EntryInvalid, ChainBroken)
"""What `Chain.read` raises."""

Page = Mapping[str, Any]


@dataclass(slots=True)
class Chain:
    """One chain from its first entry on; `run` is None for a tenant's own."""

    run: str | None
    _before: Event | None = field(default=None, init=False)

    def read(self, page: Page) -> Iterator[Shown]:
        """The entries of the next page. Raises `EntryInvalid`, `ChainBroken` at the first that does not hold."""
        values = {str(one["c"]): one for one in page["disclosures"]}
        damaged = frozenset(page["damaged"])
        for row in page["entries"]:
            yield _shown(self._entry(_bytes(row["data"])), values, damaged)

    def _entry(self, data: bytes) -> tuple[Entry, Event]:
        before = self._before
        position = 0 if before is None else before.seq + 1
        event = read_event(data, position)
        tenant = str((before or event).fields["tenant"])
        check_link(event, before, tenant=tenant, run=self.run, position=position)
        try:
            kind = check_members(event.fields)
        except (EntryMalformed, ValueError):
            raise EntryInvalid("not the members of its type", reason="entry_malformed", position=position) from None
        self._before = event
        digest = canonical.b64u_decode(event.hash)
        seq, ts, step, link = event.seq, event.ts, event.step, event.hash
        return Entry(tenant, self.run, seq, ts, kind, step, digest, link, data, event.fields), event


def _bytes(text: str) -> bytes:
    try:
        return canonical.b64u_decode(text)
    except canonical.CanonicalError:
        raise EntryInvalid("not base64url", reason="entry_unreadable") from None


def _shown(read: tuple[Entry, Event], values: Mapping[str, Any], damaged: frozenset[str]) -> Shown:
    entry, event = read
    if entry.fields["decision"] is None:
        return Shown(entry)
    if entry.fields["decision"]["input_c"] in damaged:
        return Shown(entry, spoiled=True)
    own = [values[c] for c in sorted({c for _, c in commitments(event)}) if c in values]
    try:
        (opened,), _, _ = disclose(own, (event,))
    except DisclosureInvalid:
        return _without_spoiled(entry, event, own)
    document, binding = opened.preimages.get(INPUT), opened.disclosed.get(BINDING)
    return Shown(
        entry,
        document if isinstance(document, dict) else None,
        binding if isinstance(binding, str) else None,
    )


def _without_spoiled(entry: Entry, event: Event, own: Sequence[Any]) -> Shown:
    """The entry with those values that open their commitment."""
    values: dict[str, Any] = {}
    documents: dict[str, Any] = {}
    for one in own:
        try:
            (opened,), _, _ = disclose([one], (event,))
        except DisclosureInvalid:
            continue
        values |= opened.disclosed
        documents |= opened.preimages
    document, binding = documents.get(INPUT), values.get(BINDING)
    is_whole = isinstance(document, dict)
    return Shown(entry, document if is_whole else None, binding if isinstance(binding, str) else None, not is_whole)
