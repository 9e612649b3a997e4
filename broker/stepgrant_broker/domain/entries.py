"""Ledger entries, format v1, frozen (`protocol.md` §6).

Rules:
* An entry is its RFC 8785 bytes; every field is inside them, and `prev` chains them by SHA-256.
* The members of `ALWAYS` stand in each entry, `null` where they do not apply; optional ones only have values.
* `body` has one closed set of members per type. Optional members and types may join; a changed meaning is a new `v`.
* `ts` is milliseconds since the epoch and never falls within a chain, whatever the clocks do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from stepgrant import canonical

VERSION: Final = 1
GENESIS: Final = canonical.b64u(bytes(32))
SALT_BYTES: Final = 16

Fields: TypeAlias = Mapping[str, Any]


class EntryType(StrEnum):
    """The types of v1."""

    RUN_OPENED = "run_opened"
    RUN_RESUMED = "run_resumed"
    RUN_PARKED = "run_parked"
    RUN_QUARANTINED = "run_quarantined"
    RUN_RELEASED = "run_released"
    RUN_ENDED = "run_ended"
    RUN_ERASED = "run_erased"
    STEP_PREPARED = "step_prepared"
    DECISION = "decision"
    APPROVAL_REQUESTED = "approval_requested"
    APPROVAL_DECIDED = "approval_decided"
    GRANT_ISSUED = "grant_issued"
    GRANT_FAILED = "grant_failed"
    LEASE_RECORDED = "lease_recorded"
    GRANT_REDEEMED = "grant_redeemed"
    GRANT_REVOKED = "grant_revoked"
    STEP_RECORDED = "step_recorded"
    STEP_REPLAYED = "step_replayed"
    STEP_ADOPTED = "step_adopted"
    DUPLICATE_DECIDED = "duplicate_decided"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_SUSPENDED = "step_suspended"
    STEP_IN_DOUBT = "step_in_doubt"
    STEP_RECONCILED = "step_reconciled"
    WORKLOAD_ENROLLED = "workload_enrolled"
    POLICY_ACTIVATED = "policy_activated"
    KEY_ROTATED = "key_rotated"
    KEY_REVOKED = "key_revoked"
    STORE_RESTORED = "store_restored"
    RUN_RESTORED = "run_restored"
    OPERATOR_ACTION = "operator_action"


ALWAYS: Final = frozenset(
    {
        "v",
        "tenant",
        "run",
        "seq",
        "ts",
        "type",
        "step",
        "attempt",
        "epoch",
        "prev",
        "salt",
        "by",
        "agent",
        "mode",
        "action",
        "decision",
        "body",
    }
)
OPTIONAL: Final = frozenset({"principal_c", "approval", "grant", "outcome", "cause"})


def _body(required: str = "", optional: str = "") -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(required.split()), frozenset(optional.split())


BODY: Final[Mapping[EntryType, tuple[frozenset[str], frozenset[str]]]] = {
    EntryType.RUN_OPENED: _body("run_key workload labels attestation", "input_c principal_method"),
    EntryType.RUN_RESUMED: _body("workload kind attestation lease_lapsed parked_ms"),
    EntryType.RUN_PARKED: _body("reason", "detail_c"),
    EntryType.RUN_QUARANTINED: _body("by", "note_c"),
    EntryType.RUN_RELEASED: _body("", "note_c"),
    EntryType.RUN_ENDED: _body("status", "detail_c"),
    EntryType.RUN_ERASED: _body("", "operator"),
    EntryType.STEP_PREPARED: _body(
        "idempotency_key id_source settle_ms retry_failed digest_only position revision", "parent duplicate_of"
    ),
    EntryType.DECISION: _body("phase engine", "requested kind duplicate"),
    EntryType.APPROVAL_REQUESTED: _body("binding_c issuer groups quorum answer_by valid_for_ms", "why_again"),
    EntryType.APPROVAL_DECIDED: _body("verdict settled operator", "note_c"),
    EntryType.GRANT_ISSUED: _body(
        "audience redeem revocation issued_at labels meters params jkt intent", "inherits request not_received csr_key"
    ),
    EntryType.GRANT_FAILED: _body("detail"),
    EntryType.LEASE_RECORDED: _body("lease_c"),
    EntryType.GRANT_REDEEMED: _body("server redemption_id proof_jti act_before"),
    EntryType.GRANT_REVOKED: _body("unused confirmed", "meters_back"),
    EntryType.STEP_RECORDED: _body("idempotency_key id_source position withheld", "parent"),
    EntryType.STEP_REPLAYED: _body("as"),
    EntryType.STEP_ADOPTED: _body("from"),
    EntryType.DUPLICATE_DECIDED: _body("verdict of operator", "note_c"),
    EntryType.STEP_COMPLETED: _body("withheld"),
    EntryType.STEP_FAILED: _body("", "error_c"),
    EntryType.STEP_SUSPENDED: _body(),
    EntryType.STEP_IN_DOUBT: _body("since"),
    EntryType.STEP_RECONCILED: _body("verdict", "via operator evidence_c"),
    EntryType.WORKLOAD_ENROLLED: _body("workload kind name agents audiences status", "jwk jkt groups"),
    EntryType.POLICY_ACTIVATED: _body("revision", "previous"),
    EntryType.KEY_ROTATED: _body("purpose kid number jwk since signs_from", "previous"),
    EntryType.KEY_REVOKED: _body("purpose kid at size", "note_c"),
    EntryType.STORE_RESTORED: _body("size origin", "known_size previous_origin operator note_c"),
    EntryType.RUN_RESTORED: _body("from_epoch origin"),
    EntryType.OPERATOR_ACTION: _body("action", "target detail operator roles groups token_hash name_c note_c"),
}

_KNOWN: Final = ALWAYS | OPTIONAL
_BODY_KNOWN: Final = {kind: required | optional for kind, (required, optional) in BODY.items()}


class Head(msgspec.Struct, frozen=True):
    """Where a chain stands: the next position, and the hash of the newest entry."""

    tenant: str
    run: str | None
    seq: int
    prev: str
    last_ts: int


class Entry(msgspec.Struct, frozen=True):
    """A sealed entry: its bytes are what is hashed, stored and given to auditors. `link`: `hash` as the next `prev`."""

    tenant: str
    run: str | None
    seq: int
    ts: int
    type: EntryType
    step: str | None
    hash: bytes
    link: str
    data: bytes
    fields: Fields


class EntryMalformed(Exception):
    """A draft does not have the members of its type: a bug of ours, never the caller's."""


def check_members(fields: Fields) -> EntryType:
    """Refuse a draft whose members are not those of its type; the type. Raises `EntryMalformed`."""
    names = fields.keys()
    if not names >= ALWAYS or not names <= _KNOWN:
        raise EntryMalformed(f"{fields.get('type')}: members {sorted(names ^ ALWAYS)}")
    kind = EntryType(fields["type"])
    required, body = BODY[kind][0], fields["body"].keys()
    if not required <= body or not body <= _BODY_KNOWN[kind]:
        raise EntryMalformed(f"{kind.value}: body {sorted(body ^ required)}")
    return kind


_SHAPES_KEPT: Final = 1024
_shapes: Final[dict[tuple[Any, ...], EntryType]] = {}


def _kind_of(draft: Fields) -> EntryType:
    """As `check_members`. Names that fitted are remembered: every call brings the same few, in the same order."""
    body = draft.get("body", {}).keys()
    shape = (draft.get("type"), len(body), *body, *draft)
    kind = _shapes.get(shape)
    if kind is None:
        kind = check_members(draft)
        if len(_shapes) < _SHAPES_KEPT:
            _shapes[shape] = kind
    return kind


def seal(head: Head, drafts: Sequence[Fields], salts: Sequence[bytes], now: int) -> tuple[tuple[Entry, ...], Head]:
    """Give drafts their place, time, salt and hash. Raises `EntryMalformed` and `CanonicalError`."""
    sealed: list[Entry] = []
    tenant, run, seq, prev, ts = head.tenant, head.run, head.seq, head.prev, max(now, head.last_ts)
    for draft, salt in zip(drafts, salts, strict=True):
        fields = {
            **draft, "v": VERSION, "tenant": tenant, "run": run, "seq": seq, "ts": ts,
            "prev": prev, "salt": canonical.b64u(salt),
        }  # fmt: skip
        kind = _kind_of(fields)
        data = canonical.dumps(fields)
        digest = hashlib.sha256(data).digest()
        prev = canonical.b64u(digest)
        sealed.append(Entry(tenant, run, seq, ts, kind, fields["step"], digest, prev, data, fields))
        seq += 1
    return tuple(sealed), Head(tenant, run, seq, prev, ts)
