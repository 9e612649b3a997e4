"""What decisions were made on, page by page: entries as they are hashed, and the inputs that they commit to.

Rules:
* Read only; nothing is decided, written or believed here. Whoever reads it checks chain and openings for himself, so
  what was changed at rest goes out as it is.
* Disclosed are inputs of decisions and what questions to people are bound to, each with its `r`, never the chain's key.
  After erasure nothing is left to disclose.
* One page at a time: a chain of any length takes a bounded part of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload, opening
from stepgrant_broker.domain.errors import PayloadDamaged
from stepgrant_broker.domain.reads import Reads, StoredEntry
from stepgrant_broker.usecases.context import Ports

_PLACES: Final = (("decision", "input_c"), ("body", "binding_c"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Entries in the order of the chain, and disclosures in the order of their commitments (as in a receipt).

    `damaged`: the commitments behind which something rests that does not open.
    """

    entries: tuple[StoredEntry, ...]
    disclosures: tuple[dict[str, Any], ...] = ()
    damaged: tuple[str, ...] = ()


async def evidence(ports: Ports, tenant: str, run: str | None, *, after: int, limit: int) -> Evidence:
    """The entries of a chain with `seq` above `after` (`run=None`: the tenant's own). Raises `StoreUnavailable`."""
    rows = await ports.reads.entries(tenant, run, after=after, limit=limit)
    wanted = sorted({c for row in rows for c in _commitments(row.data)})
    key = await ports.reads.chain_key(tenant, run or "") if wanted else None
    if key is None:
        return Evidence(rows)
    payloads, damaged = await _payloads(ports.reads, tenant, run or "", wanted)
    plain = ports.keys.unwrap(key, ports.wrap)
    return Evidence(rows, tuple(_disclosure(plain, payloads[c]) for c in wanted if c in payloads), damaged)


async def _payloads(
    reads: Reads, tenant: str, chain: str, wanted: Sequence[str]
) -> tuple[Mapping[str, Payload], tuple[str, ...]]:
    """What rests behind these commitments, and those behind which it does not open."""
    try:
        return await reads.payloads(tenant, chain, wanted), ()
    except PayloadDamaged:
        # One that was changed must not hide the others.
        payloads: dict[str, Payload] = {}
        damaged: list[str] = []
        for c in wanted:
            try:
                payloads.update(await reads.payloads(tenant, chain, [c]))
            except PayloadDamaged:
                damaged.append(c)
        return payloads, tuple(damaged)


def _commitments(data: bytes) -> list[str]:
    if b'"input_c"' not in data and b'"binding_c"' not in data:
        return []
    try:
        entry = canonical.loads(data)
    except canonical.CanonicalError:
        # The reader finds out for himself that this is no entry, and where.
        return []
    parts = ((entry.get(part), name) for part, name in _PLACES) if isinstance(entry, dict) else ()
    found = (part.get(name) for part, name in parts if isinstance(part, dict))
    return [c for c in found if isinstance(c, str)]


def _disclosure(key: bytes, payload: Payload) -> dict[str, Any]:
    value = payload.value()
    disclosure = {
        "c": payload.c,
        "field": payload.field,
        "r": canonical.b64u(opening(key, payload.field, value)),
        "value": canonical.loads(value),
    }
    return disclosure | ({"preimage": canonical.b64u(payload.body)} if payload.form == "preimage" else {})
