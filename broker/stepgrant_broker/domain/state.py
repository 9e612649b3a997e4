"""The state of a run, as frozen values: what folding its entries gives (`fold/`), and what the tables hold.

Rules:
* Everything that can be personal or guessed stands here only as a commitment (`…_c`, `protocol.md` §6).
* Times are milliseconds since the epoch; the lease is the one thing that entries do not carry (heartbeats).
* What every call makes or changes is a `Struct`, here and elsewhere: it is made in C, ten times faster than a frozen
  dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from stepgrant_broker.domain.decisions import Effect, Json, RedeemMode
from stepgrant_broker.domain.ports import Revocation


class RunState(StrEnum):
    """`open` (held) → `parked` → `completed | failed | cancelled`; `quarantined` by the kill switch."""

    OPEN = "open"
    PARKED = "parked"
    QUARANTINED = "quarantined"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Final states."""
        return self in _ENDED


_ENDED: Final = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})


class StepState(StrEnum):
    """State of a step's newest attempt."""

    PREPARED = "prepared"
    DENIED = "denied"
    AWAITING_APPROVAL = "awaiting_approval"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    SUSPENDED = "suspended"
    IN_DOUBT = "in_doubt"
    RECORDED = "recorded"
    ADOPTED = "adopted"
    """Not a step of its own: another name of the step `same_as`, from a call whose id was lost."""

    @property
    def done(self) -> bool:
        """True when the step has a result that is never made again."""
        return self in _DONE


IN_FLIGHT: Final = frozenset({StepState.STARTED, StepState.SUSPENDED})
_DONE: Final = frozenset({StepState.COMPLETED, StepState.RECORDED})


class IdSource(StrEnum):
    """Where a step key comes from; an ordinal may not change its arguments (`architecture.md` §4)."""

    CALL_ID = "call_id"
    EXPLICIT = "explicit"
    ORDINAL = "ordinal"


ID_SOURCES: Final[Mapping[str, IdSource]] = {source.value: source for source in IdSource}


class FailStatus(StrEnum):
    """How a step failed. `unknown` is not a failure but a question."""

    NOT_EXECUTED = "not_executed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class GrantStatus(StrEnum):
    """`intent` and `failed` belong to outside issuers; `revoked` is final."""

    INTENT = "intent"
    ISSUED = "issued"
    FAILED = "failed"
    REVOKED = "revoked"


class ApprovalStatus(StrEnum):
    """`consumed` by a grant's commit; `void` when its binding no longer exists."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CONSUMED = "consumed"
    VOID = "void"


class History(Struct, frozen=True):
    """What policy may know of a run's past. Counts are of grants and records; `meters` in millionths."""

    tools: Mapping[str, int] = field(default_factory=dict)
    effects: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    meters: Mapping[str, int] = field(default_factory=dict)
    denials: int = 0
    in_flight: int = 0


class Run(Struct, frozen=True):
    """One execution of an agent. `seq` is the number of its entries so far, and the version that commits compare.

    `tries`: how often it was opened since a step last got a result (`fold/runs.py`). `erased_at`: since when its
    key and its payloads are destroyed.
    """

    id: str
    tenant: str
    key: str
    agent: str
    agent_version: str | None
    state: RunState
    epoch: int
    jkt: str
    workload: str
    subject_c: str
    opened_at: int
    labels: Mapping[str, str]
    input_c: str | None
    principal_c: str | None
    principal_method: str | None
    seq: int
    head: str
    last_ts: int
    parked_at: int | None = None
    parked_ms: int = 0
    park_reason: str | None = None
    ended_at: int | None = None
    result_c: str | None = None
    step_count: int = 0
    history: History = field(default_factory=History)
    tries: int = 0
    park_detail_c: str | None = None
    erased_at: int | None = None


class Epoch(Struct, frozen=True):
    """One holding of a run: the key of an epoch is new to the run, so that a zombie never looks like its heir."""

    run: str
    tenant: str
    epoch: int
    jkt: str
    workload: str
    subject_c: str
    at: int


class Step(Struct, frozen=True):
    """One intended action with its newest attempt, or a recorded step (`tool` is its name, no credential).

    `same_as`: the step that this one is only another name of. `adopted_epoch`: when a call last got to be this step
    after its own id was lost. `duplicate_of`: the completed step that it equals. `duplicate`: a person's word, `run` at
    the step that is not the completed one, `replay` at the completed one that was meant.
    """

    run: str
    tenant: str
    key: str
    recorded: bool
    tool: str
    effect: Effect
    idempotency_key: str
    digest_c: str
    resource_c: str | None
    id_source: IdSource
    parent: str | None
    settle_ms: int
    retry_failed: bool
    digest_only: bool
    state: StepState
    attempt: int
    epoch: int
    position: int
    revision: int = 1
    started_ever: bool = False
    grant: str | None = None
    approval: str | None = None
    result_c: str | None = None
    withheld: bool = False
    fail_status: FailStatus | None = None
    error_c: str | None = None
    doubt: str | None = None
    doubt_since: int | None = None
    previous_outcome: str | None = None
    replayed_epoch: int = 0
    reconciles: int = 0
    decision: str | None = None
    same_as: str | None = None
    adopted_epoch: int = 0
    duplicate_of: str | None = None
    duplicate: str | None = None


class Grant(Struct, frozen=True):
    """The permission record of one credential, with what it counted and how it was used."""

    jti: str
    run: str
    tenant: str
    step: str
    attempt: int
    epoch: int
    issuer: str
    revocation: Revocation
    tool: str
    effect: Effect
    redeem: RedeemMode
    jkt: str
    audience: str
    digest_c: str
    status: GrantStatus
    issued_at: int
    exp: int
    approval: str | None = None
    labels: tuple[str, ...] = ()
    meters: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Json] = field(default_factory=dict)
    request: str | None = None
    redeemed_at: int | None = None
    redemption_id: str | None = None
    redeemer: str | None = None
    proof_jti: str | None = None
    act_before: int | None = None
    revoked_at: int | None = None
    confirmed_at: int | None = None
    cause: str | None = None
    not_received: bool = False
    handle_c: str | None = None
    lease_c: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One person's answer to an approval."""

    operator: str
    approver_c: str
    verdict: str
    at: int


class Approval(Struct, frozen=True):
    """A question to people about one exact action of one step. `binding_c` commits to all that it is bound to."""

    id: str
    run: str
    tenant: str
    step: str
    binding_c: str
    tool: str
    effect: Effect
    issuer: str
    groups: tuple[str, ...]
    quorum: int
    requested_at: int
    answer_by: int
    valid_for_ms: int
    revision: str
    reasons: tuple[str, ...]
    status: ApprovalStatus
    why_again: str | None = None
    answers: tuple[Answer, ...] = ()
    settled_at: int | None = None
    resumed_at: int | None = None
    consumed_by: str | None = None


class View(Struct, frozen=True):
    """What was loaded of a run, or what it became: a step that is absent was either not asked for or does not exist."""

    run: Run | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    epochs: Mapping[int, Epoch] = field(default_factory=dict)
