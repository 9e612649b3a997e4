"""Making a receipt of a run, step or grant (`protocol.md` §6). `stepgrant.receipt` draws its shape and verifies it.

Rules:
* It discloses value and `r` of each commitment, never `k_run`; fields that the caller leaves out stay closed.
* Chain and payloads are checked first: what was changed at rest is named, not signed over.
* The head is signed over the entries that are in the receipt, so a run that goes on meanwhile does no harm.
* Handles and leases at issuers outside stay closed: while they live, whoever knows them may be able to end them.
* After erasure the entries still verify; nothing is left to disclose.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from stepgrant import canonical
from stepgrant._receipt_entries import check_link, commitments, has_ended, read_event
from stepgrant._receipt_head import head_bytes
from stepgrant._receipt_parts import is_about, part_of
from stepgrant._receipt_policies import revisions
from stepgrant._verification_errors import ReceiptError
from stepgrant.receipt import KIND, VERSION
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import opening
from stepgrant_broker.domain.errors import NotFound, StoreUnavailable, TooLarge, UnknownRun
from stepgrant_broker.ledger.placing import place

if TYPE_CHECKING:
    from stepgrant.receipt import Event
    from stepgrant_broker.domain.commitments import Payload
    from stepgrant_broker.domain.ports import Failpoints, KeyWrap, Signer
    from stepgrant_broker.domain.reads import Reads, StoredEntry
    from stepgrant_broker.ledger.public_log import PublicLog

PURPOSE: Final = "heads"
PAGE: Final = 500
MAX_POLICY: Final = 67_108_864
MAX_ENTRIES: Final = 100_000
CLOSED: Final = frozenset({"grant.handle", "grant.lease"})
DIGEST_ONLY: Final = frozenset({"approval.binding"})
"""Shown as the digest that the person echoed, as all receipts so far have it."""


async def make_receipt(
    reads: Reads,
    wrap: KeyWrap,
    signer: Signer,
    tenant: str,
    run: str,
    *,
    scope: tuple[str, str] | None = None,
    log: PublicLog | None = None,
    redact: Collection[str] = (),
    preimages: bool = True,
    failpoints: Failpoints | None = None,
) -> dict[str, Any]:
    """The receipt as JSON; send it as `canonical.dumps(...)`, its one form.

    Args:
        reads: where the evidence is.
        wrap: opens the run's key.
        signer: signs the run's head.
        tenant: whose.
        run: which run.
        scope: ("step", key) or ("grant", jti); by default the whole run.
        log: where the entries' places are proven.
        redact: names of fields to keep closed (`action.digest`, `by.subject`, ...).
        preimages: False shows digests only.
        failpoints: of a test.

    Raises:
        UnknownRun, NotFound: no such run, or nothing of this scope; TooLarge, StoreUnavailable, SignerUnavailable.
    """
    kind, name = scope = scope or ("run", run)
    stored, events = await _of_scope(reads, tenant, run, scope)

    async def again() -> list[StoredEntry]:
        wanted = {entry.seq for entry in stored}
        return [entry for entry in await _entries(reads, tenant, run) if entry.seq in wanted]

    return {
        "v": VERSION,
        "kind": KIND,
        "tenant": tenant,
        "run": run,
        "scope": {"kind": kind, "id": name},
        "entries": [canonical.b64u(entry.data) for entry in stored],
        "disclosures": await _disclosures(reads, wrap, tenant, run, events, CLOSED.union(redact), preimages=preimages),
        "head": await _head(reads, signer, events, failpoints) if kind == "run" else None,
        "log": await place(log, stored, again) if log is not None else None,
        "policies": await _policies(reads, tenant, events),
        "complete": kind == "run" and has_ended(events),
    }


async def _of_scope(
    reads: Reads, tenant: str, run: str, scope: tuple[str, str]
) -> tuple[list[StoredEntry], list[Event]]:
    """The entries that the receipt is about, out of a chain that holds. Raises `UnknownRun`, `NotFound`."""
    every = await _entries(reads, tenant, run)
    if not every:
        raise UnknownRun("no such run")
    events = _checked(every, tenant, run)
    belongs = part_of(events, scope)
    mine = [pair for pair in zip(every, events, strict=True) if belongs(pair[1])]
    if not any(is_about(event, scope) for event in events):
        raise NotFound(f"the run has no entry of {scope[0]} {scope[1]}")
    return [entry for entry, _ in mine], [event for _, event in mine]


async def _head(reads: Reads, signer: Signer, events: Sequence[Event], failpoints: Failpoints | None) -> dict[str, Any]:
    """The run's head, signed now."""
    last = events[-1]
    tenant, run = str(last.fields["tenant"]), str(last.fields["run"])
    ts = max(await reads.now(), last.ts)
    signed = head_bytes(tenant=tenant, run=run, seq=len(events), entry_hash=last.hash, ts=ts)
    if failpoints is not None:
        failpoints.hit("ledger.head")
    signature = await signer.sign(PURPOSE, signed)
    return {
        "tenant": tenant,
        "run": run,
        "seq": len(events),
        "hash": last.hash,
        "ts": ts,
        "signature": {"kid": signature.kid, "alg": signature.alg, "value": canonical.b64u(signature.value)},
    }


async def _policies(reads: Reads, tenant: str, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The text of each revision that these entries were decided under, as far as it is kept."""
    found = [(revision, await reads.policy(tenant, revision)) for revision in revisions(events)]
    return [
        {"revision": revision, "files": canonical.loads(policy.text, max_bytes=MAX_POLICY)}
        for revision, policy in found
        if policy is not None
    ]


async def _entries(reads: Reads, tenant: str, run: str) -> list[StoredEntry]:
    found: list[StoredEntry] = []
    while page := await reads.entries(tenant, run, after=len(found) - 1, limit=PAGE):
        found.extend(page)
        if len(found) > MAX_ENTRIES:
            raise TooLarge(f"a receipt has at most {MAX_ENTRIES} entries; read this run's entries by pages")
    return found


def _checked(stored: Iterable[StoredEntry], tenant: str, run: str) -> list[Event]:
    """The entries, read; a chain that does not hold must not get a signed head."""
    events: list[Event] = []
    for position, entry in enumerate(stored):
        try:
            event = read_event(entry.data, position)
            check_link(event, events[-1] if events else None, tenant=tenant, run=run, position=position)
        except ReceiptError as error:
            raise StoreUnavailable(f"{error}; run `stepgrant ledger verify`") from None
        events.append(event)
    return events


async def _disclosures(
    reads: Reads,
    wrap: KeyWrap,
    tenant: str,
    run: str,
    events: Iterable[Event],
    redact: frozenset[str],
    *,
    preimages: bool,
) -> list[dict[str, Any]]:
    key = await reads.chain_key(tenant, run)
    if key is None:
        return []
    plain = wrap.unwrap(key.wrapped, aad.chain_key(tenant, run))
    wanted = sorted({c for event in events for place, c in commitments(event) if place not in redact})
    shown: list[dict[str, Any]] = []
    for start in range(0, len(wanted), PAGE):
        asked = wanted[start : start + PAGE]
        payloads = await reads.payloads(tenant, run, asked)
        open_ones = [payloads[c] for c in asked if c in payloads and payloads[c].field not in redact]
        shown.extend(_disclosure(plain, payload, preimages=preimages) for payload in open_ones)
    return shown


def _disclosure(key: bytes, payload: Payload, *, preimages: bool) -> dict[str, Any]:
    value = payload.value()
    r = opening(key, payload.field, value)
    if canonical.b64u(hmac.digest(r, value, hashlib.sha256)) != payload.c:
        raise StoreUnavailable(
            f"the stored {payload.field} is not what its entry commits to; run `stepgrant ledger verify`"
        )
    disclosure = {"c": payload.c, "field": payload.field, "r": canonical.b64u(r), "value": canonical.loads(value)}
    if preimages and payload.form == "preimage" and payload.field not in DIGEST_ONLY:
        disclosure["preimage"] = canonical.b64u(payload.body)
    return disclosure
