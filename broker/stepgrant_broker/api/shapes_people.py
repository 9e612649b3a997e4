"""The shapes of answers to people, and of keys and health. See `shapes.py`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from stepgrant_broker.api.shapes import Effect, EntryView, Grant
from stepgrant_broker.api.shapes_runs import RunView

Role = Literal["approver", "operator"]


class ApprovalAnswer(msgspec.Struct):
    """One person's answer."""

    operator: str
    verdict: Literal["approve", "deny"]
    at: int


class ApprovalView(msgspec.Struct):
    """A question to people, as it is listed. `revision`: of the policy that put it."""

    id: str
    run: str
    step: str
    tool: str
    effect: Effect
    issuer: str
    status: Literal["pending", "approved", "denied", "expired", "consumed", "void"]
    groups: list[str]
    quorum: int
    requested_at: int
    answer_by: int
    valid_for_ms: int
    reasons: list[str]
    revision: str
    why_again: str | None
    settled_at: int | None
    consumed_by: str | None
    answers: list[ApprovalAnswer]


class ShownAction(msgspec.Struct):
    """The exact action; `args` is `null` where it was erased, or where the question is about the run itself."""

    tool: str
    resource: str | None
    args: Any


class Bound(msgspec.Struct):
    """What an answer is bound to. `digest` is that of the action, or of the resume."""

    tenant: str
    run: str
    step: str
    digest: str
    effect: Effect
    issuer: str
    params: dict[str, Any]


class ShownResume(msgspec.Struct):
    """A resume or takeover: who asks to go on with which run. The answer counts for both, by nobody else."""

    run: str
    subject: str


class ShownApproval(ApprovalView, kw_only=True):
    """A question with all that a person needs to answer it. `digest` is what the answer must echo.

    It is the digest (SHA-256 over RFC 8785 JSON) of `bound`, whose own `digest` is that of `{action, args, resource}`
    as `action` shows them, or that of `resume`. `bound` is `null` where it was erased, or asked by an older broker.
    """

    digest: str | None
    bound: Bound | None
    action: ShownAction
    resume: ShownResume | None
    run_facts: RunView


class Approvals(msgspec.Struct):
    """A page of approvals, newest first."""

    approvals: list[ApprovalView]
    next: str | None


class Grants(msgspec.Struct):
    """A page of grants, newest first."""

    grants: list[Grant]
    next: str | None


class QuarantineDone(msgspec.Struct):
    """A kill switch that was thrown, and the runs that were taken back."""

    kind: Literal["run", "agent", "workload", "issuer"]
    name: str
    runs: list[str]


class Released(msgspec.Struct):
    """A kill switch that was lifted."""

    kind: Literal["run", "agent", "workload", "issuer"]
    name: str


class QuarantineView(msgspec.Struct):
    """A kill switch that is thrown. `until`: when it ends by itself."""

    kind: Literal["agent", "workload", "issuer"]
    name: str
    at: int
    until: int | None


class Quarantines(msgspec.Struct):
    """All kill switches that are thrown (runs that are quarantined are listed as runs)."""

    quarantines: list[QuarantineView]


class WorkloadView(msgspec.Struct):
    """An enrolment."""

    id: str
    name: str
    kind: str
    agents: list[str]
    audiences: list[str]
    jkt: str
    enrolled_at: int
    removed_at: int | None


class Workloads(msgspec.Struct):
    """All enrolments."""

    workloads: list[WorkloadView]


class OperatorView(msgspec.Struct):
    """A person."""

    id: str
    name: str
    roles: list[Role]
    groups: list[str]
    created_at: int
    removed_at: int | None


class Whoami(msgspec.Struct):
    """Whose token this is."""

    id: str
    name: str
    tenant: str
    roles: list[Role]
    groups: list[str]


class CreatedOperator(OperatorView, kw_only=True):
    """A new person. The token is in this answer and nowhere else."""

    token: str


class Operators(msgspec.Struct):
    """All people."""

    operators: list[OperatorView]


class SecretView(msgspec.Struct):
    """Everything of a static secret but the secret."""

    name: str
    hosts: list[str]
    header: str
    set_at: int
    revocation: Literal["none"]


class Secrets(msgspec.Struct):
    """All static secrets that are set."""

    secrets: list[SecretView]


class PolicyView(msgspec.Struct):
    """An activated policy."""

    revision: str
    activated_at: int
    active: bool


class Policies(msgspec.Struct):
    """All activated policies, newest first."""

    policies: list[PolicyView]


class PolicyWithText(msgspec.Struct):
    """A policy with its sources, by path."""

    revision: str
    activated_at: int
    text: dict[str, str]


class DecisionView(msgspec.Struct):
    """A recorded decision with the exact input it was made on (`null` once erased)."""

    decision_id: str
    seq: int
    step: str | None
    effect: Literal["allow", "deny", "require_approval"]
    reasons: list[str]
    policy_revision: str
    engine: str | None
    input: Any
    erased: bool


class Disclosure(msgspec.Struct):
    """A value behind a commitment, with the `r` that proves it; `preimage` are the bytes that a digest is of."""

    c: str
    field: str
    r: str
    value: Any
    preimage: str | msgspec.UnsetType = msgspec.UNSET


class Evidence(msgspec.Struct):
    """Entries of a chain in order, with inputs of decisions and what questions are bound to; `next` as in `Entries`.

    `damaged`: commitments behind which something rests that does not open; somebody changed it.
    """

    entries: list[EntryView]
    disclosures: list[Disclosure]
    damaged: list[str]
    next: int | None


class Jwks(msgspec.Struct):
    """Public keys (RFC 7517)."""

    keys: list[dict[str, str]]


class Alive(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"]


class Ready(msgspec.Struct):
    """Whether store, policy and signer work, and the log goes on where it was."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, Literal["ok", "failed"]]


class Token(msgspec.Struct):
    """An access token that is bound to the DPoP key (RFC 8693 §2.2.1)."""

    access_token: str
    token_type: Literal["DPoP"]
    issued_token_type: str
    expires_in: int
