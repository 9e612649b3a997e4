"""Receipts: what happened in one run, verified offline with nothing but the broker's public key.

    verified = receipt.verify(data, keys)        # raises ReceiptError, or everything below holds

A receipt is RFC 8785 JSON, and has one form only:

    {v: 2, kind: "stepgrant.receipt", tenant, run, scope: {kind: "run" | "step" | "grant", id},
     entries: [b64u of the exact bytes], complete, disclosures: [{c, field, r, value, preimage?}],
     head: {tenant, run, seq, hash, ts, signature: {kid, alg, value}} | null,
     log: {checkpoint, proofs: [{index, hashes}]} | null, policies: [{revision, files}]}

Version 1 is the same without `scope` (it was always a run), `log` and `policies`; it verifies for ever.

What holds after `verify`:

* Of a run: the entries are all of it, in order, none missing between the first and the head, each byte as it was
  hashed; the head over them was signed (Ed25519) by a key that you trust. Of a step or a grant: the entries are its
  own, and what a grant rests on, in order; where they stand side by side in the run they follow one another.
* With `log`: each entry is in the log whose tree head a key that you trust signed, and, with a log policy, as many
  witnesses cosigned as it asks for. A step or a grant always needs this.
* A policy's text is the one whose digest stands in the decisions.
* Each disclosed value is the one that its entry committed to when it was written: `c = HMAC-SHA-256(r, value)`. What is
  not disclosed stays hidden, and nobody can tell a withheld value from another one. Where the value is a digest,
  `preimage` (b64u) may hold the bytes that it is of: arguments, a result, the input of a decision.
* `complete` is true only if the run has ended. After that only issuers' confirmations may come that what was taken back
  is dead, and the erasure of the run's values.

Then ask: `verified.step("charge")` says who acted, under which decisions with which policy text, with whose approval
and with which grants, each with its end; `verified.missing` what is not in it.

What a receipt does not prove is in `DOES_NOT_PROVE`; it belongs on every page that shows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stepgrant._receipt_disclosures import disclose
from stepgrant._receipt_entries import Event, check_link, has_ended, read_event
from stepgrant._receipt_errors import (
    ChainBroken,
    DisclosureInvalid,
    EntryInvalid,
    HeadInvalid,
    KeyRevoked,
    KeysUnreadable,
    LogProofInvalid,
    NotInReceipt,
    PolicyTextInvalid,
    ReceiptUnreadable,
)
from stepgrant._receipt_facts import Actor, Answer, Approval, Decision, Erased, Gap, Grant, Redemption, Step
from stepgrant._receipt_gather import gather
from stepgrant._receipt_head import check_head, head_bytes
from stepgrant._receipt_keys import Keys, Trust, read_trust
from stepgrant._receipt_log import Logged, check_log
from stepgrant._receipt_parts import entry_bytes, some_events
from stepgrant._receipt_policies import check_policies
from stepgrant._receipt_verified import Verified
from stepgrant._verification_errors import ReceiptError
from stepgrant.canonical import CanonicalError, JsonValue, digest_bytes, dumps, loads
from stepgrant.tlog import read_log_policy

__all__ = [
    "DOES_NOT_PROVE",
    "Actor",
    "Answer",
    "Approval",
    "ChainBroken",
    "Decision",
    "DisclosureInvalid",
    "EntryInvalid",
    "Erased",
    "Event",
    "Gap",
    "Grant",
    "HeadInvalid",
    "KeyRevoked",
    "KeysUnreadable",
    "LogProofInvalid",
    "Logged",
    "NotInReceipt",
    "PolicyTextInvalid",
    "ReceiptError",
    "ReceiptUnreadable",
    "Redemption",
    "Step",
    "Verified",
    "as_html",
    "head_bytes",
    "read_event",
    "verify",
]

VERSION: Final = 2
FIRST_VERSION: Final = 1
KIND: Final = "stepgrant.receipt"
SCOPES: Final = frozenset({"run", "step", "grant"})
MAX_BYTES: Final = 268_435_456

DOES_NOT_PROVE: Final = (
    "that everything was recorded: a broker that was taken over can act and write nothing",
    "that nothing came after the head, unless the run has ended: ask for a newer receipt",
    "that others were shown the same entries: compare with an earlier or another receipt of this run",
    "that the times are right: they are the broker's clock",
    "that a tool did what its result says: a result is what the agent reported",
)

_FIRST: Final = frozenset({"v", "kind", "tenant", "run", "entries", "disclosures", "head", "complete"})
_TOP: Final = _FIRST | {"scope", "log", "policies"}
_SCOPE: Final = frozenset({"kind", "id"})


def verify(
    receipt: bytes | Mapping[str, JsonValue], keys: Keys, *, log_policy: str | None = None, need_log: bool = False
) -> Verified:
    """Verify a receipt (its bytes, or as parsed JSON) with exported keys, a JWKS, a JWK or vkey lines.

    Args:
        receipt: the file.
        keys: whom you trust to sign heads; only what `stepgrant keys export` gives says what was revoked.
        log_policy: a C2SP tlog-policy: which log and which witnesses you trust. It needs `log`.
        need_log: refuse a receipt that is not in the log yet.

    Raises:
        ReceiptError: it does not hold; a subclass says which part, `reason` is stable, `position` is the entry's.
    """
    trust = read_trust(keys)
    top, data = _read(receipt)
    tenant, run = _text(top, "tenant"), _text(top, "run")
    scope = _scope(top, run)
    events = _events(top, tenant, run) if scope[0] == "run" else some_events(top["entries"], tenant, run, scope)
    kid, head_ts = _signed(top, events, trust, scope)
    logged = _logged(top, events, trust, log_policy, need_log=need_log or scope[0] != "run")
    complete = scope[0] == "run" and has_ended(events)
    if top["complete"] is not complete:
        raise ReceiptUnreadable("a receipt is complete exactly if its run has ended", reason="wrong_complete")
    policies = check_policies(top.get("policies", []), events)
    over = trust.revoked.get(kid or "")
    events, disclosed, hidden = disclose(top["disclosures"], events)
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
        scope=scope,
        logged=logged,
        policies=policies,
        digest=digest_bytes(data),
        facts=gather(events, policies),
        key_revoked_at=None if over is None else over.at,
    )


def as_html(verified: Verified, *, keys_from: str | None = None) -> str:
    """The receipt as one HTML page that loads nothing: verdict, steps, story, policy texts, proofs, limits.

    Args:
        verified: what `verify` gave; there is no page of a receipt that does not hold.
        keys_from: a warning for the reader about where the public keys came from.
    """
    from stepgrant._receipt_html import page  # noqa: PLC0415 - the page is told by the timeline, which reads receipts

    return page(verified, keys_from=keys_from)


# ------------------------------------------------------------------------------------------------------------- parts


def _read(receipt: bytes | Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], bytes]:
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
    if not isinstance(top, dict) or not {"v", "kind"} <= top.keys():
        raise ReceiptUnreadable("not the members of a receipt", reason="wrong_members")
    v = top["v"]
    if not isinstance(v, int) or v is True or v not in {FIRST_VERSION, VERSION} or top["kind"] != KIND:
        raise ReceiptUnreadable("not a receipt of a version that is known here", reason="wrong_version")
    if top.keys() != (_TOP if top["v"] == VERSION else _FIRST):
        raise ReceiptUnreadable("not the members of a receipt", reason="wrong_members")
    return top, data


def _signed(
    top: Mapping[str, JsonValue], events: tuple[Event, ...], trust: Trust, scope: tuple[str, str]
) -> tuple[str | None, int | None]:
    """Which key signed the run's head, and when; a receipt of a part has none."""
    if scope[0] != "run":
        if top["head"] is not None:
            raise HeadInvalid("a receipt of a part has no run head", reason="head_foreign")
        return None, None
    kid, head_ts = check_head(top["head"], events, trust.keys, _text(top, "tenant"), _text(top, "run"))
    if kid in trust.revoked and top.get("log") is None:
        # A thief of the key signs any head at any time: only the log shows that these entries were there before.
        raise KeyRevoked(
            "the run's head is signed with a key that was revoked; ask for a new receipt", reason="key_revoked"
        )
    return kid, head_ts


def _scope(top: Mapping[str, JsonValue], run: str) -> tuple[str, str]:
    if top["v"] == FIRST_VERSION:
        return "run", run
    scope = top["scope"]
    if not isinstance(scope, dict) or scope.keys() != _SCOPE:
        raise ReceiptUnreadable("scope has kind and id", reason="wrong_members")
    kind, name = scope["kind"], scope["id"]
    if not isinstance(kind, str) or not isinstance(name, str) or kind not in SCOPES or (kind == "run" and name != run):
        raise ReceiptUnreadable("scope is a run, a step or a grant of it", reason="wrong_members")
    return kind, name


def _logged(
    top: Mapping[str, JsonValue],
    events: tuple[Event, ...],
    trust: Trust,
    log_policy: str | None,
    *,
    need_log: bool,
) -> Logged | None:
    value = top.get("log")
    policy = None if log_policy is None else read_log_policy(log_policy)
    if value is not None:
        return check_log(value, events, trust, policy)
    if need_log or policy is not None:
        raise LogProofInvalid("it has no proof that its entries are in the log", reason="not_logged")
    return None


def _text(top: Mapping[str, JsonValue], name: str) -> str:
    value = top[name]
    if not isinstance(value, str):
        raise ReceiptUnreadable(f"{name} is not text", reason="wrong_members")
    return value


def _events(top: Mapping[str, JsonValue], tenant: str, run: str) -> tuple[Event, ...]:
    """All entries of a run from the first one on."""
    events: list[Event] = []
    for position, data in enumerate(entry_bytes(top["entries"])):
        event = read_event(data, position)
        check_link(event, events[-1] if events else None, tenant=tenant, run=run, position=position)
        events.append(event)
    if events[0].type != "run_opened":
        raise ChainBroken("the first entry does not open a run", reason="not_from_the_start", position=0)
    return tuple(events)
