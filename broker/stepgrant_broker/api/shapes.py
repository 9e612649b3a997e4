"""The shapes of answers, for the OpenAPI document and for the tests that compare real answers with it.

They describe what `usecases/answers.py` and the use cases build; nothing is converted through them when serving.
Members may be added to answers, so these structs are open. Times are Unix milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Effect = Literal["read", "idempotent", "once"]
Revocation = Literal["confirmed", "expiry", "none"]


class Doubt(msgspec.Struct):
    """A step in doubt, with who may settle it."""

    step: str
    tool: str
    attempt: int
    why: str | None
    since: int | None
    reconciles: int
    idempotency_key: str
    options: list[Literal["reconcile", "person"]]
    outcome: Literal["in_doubt"] = "in_doubt"


class Grant(msgspec.Struct):
    """A grant as its holder and people see it; no secret is in it."""

    jti: str
    run: str
    step: str
    attempt: int
    epoch: int
    issuer: str
    revocation: Revocation
    tool: str
    effect: Effect
    redeem: Literal["required", "optional"]
    audience: str
    status: Literal["intent", "issued", "failed", "revoked"]
    issued_at: int
    expires_at: int
    redeemed_at: int | None
    act_before: int | None
    revoked_at: int | None
    cause: str | None
    approval: str | None
    labels: list[str]
    idempotency_key: str | None


class Credential(msgspec.Struct):
    """The credential, sent once. `fields` are secret: never store or log them."""

    kind: str
    fields: dict[str, str]
    hosts: list[str]
    expires_at: int
    revocation: Revocation
    run: str


class Failure(msgspec.Struct):
    """A recorded failure."""

    status: Literal["not_executed", "failed", "unknown"] | None
    error: str | None


class Run(msgspec.Struct, tag_field="outcome", tag="run"):
    """Go on; after start and begin with the grant and its credential."""

    step: str
    attempt: int
    grant: Grant | msgspec.UnsetType = msgspec.UNSET
    credential: Credential | msgspec.UnsetType = msgspec.UNSET


class Replay(msgspec.Struct, tag_field="outcome", tag="replay"):
    """The recorded outcome: a result, or a failure."""

    step: str
    attempt: int
    state: str
    result: Any = msgspec.UNSET
    withheld: bool | msgspec.UnsetType = msgspec.UNSET
    failure: Failure | msgspec.UnsetType = msgspec.UNSET


class Denied(msgspec.Struct, tag_field="outcome", tag="denied"):
    """Policy, or a person, says no."""

    reasons: list[str]
    decision_id: str | None


class ApprovalRequired(msgspec.Struct, tag_field="outcome", tag="approval_required"):
    """A person must answer first."""

    approval_id: str
    answer_by: int
    groups: list[str]
    reasons: list[str]
    why_again: str | None


class InDoubt(msgspec.Struct, tag_field="outcome", tag="in_doubt"):
    """The step may already have happened. `blocked`: the call is another one, of the same tool, and has to wait."""

    step: str
    tool: str
    attempt: int
    why: str | None
    since: int | None
    reconciles: int
    idempotency_key: str
    options: list[Literal["reconcile", "person"]]
    blocked: bool | msgspec.UnsetType = msgspec.UNSET


class SuspectedDuplicate(msgspec.Struct, tag_field="outcome", tag="suspected_duplicate"):
    """The call, recorded as `step`, equals `of`, a completed step of an earlier epoch; a person says if it is that."""

    step: str
    of: str
    options: list[Literal["replay", "run"]]


class Recorded(msgspec.Struct, tag_field="outcome", tag="recorded"):
    """The step's result is recorded."""

    step: str
    attempt: int


Outcome = Run | Replay | Denied | ApprovalRequired | InDoubt | SuspectedDuplicate
RecordOutcome = Recorded | Replay


class StepReport(msgspec.Struct):
    """What a report of an outcome left behind."""

    step: str
    attempt: int
    state: str
    in_doubt: Doubt | msgspec.UnsetType = msgspec.UNSET


class Reconciled(msgspec.Struct):
    """A doubt that was settled, or not."""

    step: str
    attempt: int
    state: str
    reconciles: int


class DuplicateDecided(msgspec.Struct):
    """What a person said of a suspected duplicate."""

    step: str
    of: str
    verdict: Literal["replay", "run"]
    state: str


class Redeemed(msgspec.Struct):
    """A grant's one use, spent: no effect may begin at or after `act_before` (by the clock that says `now`)."""

    jti: str
    act_before: int
    redeemed_at: int
    now: int
    run: str
    step: str
    attempt: int
    epoch: int


class StepView(msgspec.Struct):
    """A step as it is shown."""

    key: str
    recorded: bool
    tool: str
    resource: str | None
    effect: Effect
    state: str
    attempt: int
    epoch: int
    position: int
    parent: str | None
    idempotency_key: str
    grant: str | None
    approval: str | None
    result: Any
    withheld: bool
    failure: Literal["not_executed", "failed", "unknown"] | None
    error: str | None
    doubt: str | None
    doubt_since: int | None
    reconciles: int
    same_as: str | None
    duplicate_of: str | None
    suspected: bool
    erased: bool


class Steps(msgspec.Struct):
    """A page of steps, in their order."""

    steps: list[StepView]
    next: str | None


class EntryView(msgspec.Struct):
    """An entry: `data` are its exact bytes in base64url, which its hash is over."""

    seq: int
    data: str
    leaf_index: int | None


class Entries(msgspec.Struct):
    """Entries of a chain in order; `next` is the last `seq`, to be sent as `after`."""

    entries: list[EntryView]
    next: int | None


class Problem(msgspec.Struct):
    """What went wrong (RFC 9457). Match on `code`; further members depend on it."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class OAuthError(msgspec.Struct):
    """What went wrong at the token endpoint (RFC 6749 §5.2)."""

    error: str
    error_description: str
