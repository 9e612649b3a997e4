"""The bodies of requests, shared by SDK and broker (`protocol.md` §2).

Rules:
* A body is strict canonical JSON first (`canonical.loads`), then one of these structs; unknown members are refused.
* Names and meanings only grow: a new member goes last and has a default.
* Times are milliseconds unless a name ends in `_s` (seconds). Answers are plain JSON, read by `_client`.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

Effect = Literal["read", "idempotent", "once"]
IdSource = Literal["call_id", "explicit", "ordinal"]


class Body(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Base: frozen, and closed against unknown members."""


class OpenRun(Body, frozen=True):
    """`POST /v1/runs`. Without `run_key` the broker names the run itself. No `input` member: none was given.

    `resume`: a run that is not there is `unknown_run` and not opened.
    """

    agent: str
    run_key: str | None = None
    version: str | None = None
    input: Any | UnsetType = UNSET
    labels: dict[str, str] = {}
    principal: str | None = None
    takeover: bool = False
    resume: bool = False


class QueueRun(Body, frozen=True):
    """`POST /v1/runs/queue`: store a run for whoever comes to run it. One that is there is left as it is."""

    agent: str
    run_key: str | None = None
    version: str | None = None
    input: Any | UnsetType = UNSET
    labels: dict[str, str] = {}
    principal: str | None = None


class Action(Body, frozen=True):
    """One exact action: `args` are the bound call's arguments as JSON, or only their digest is given."""

    tool: str
    resource: str | None = None
    args: Any | UnsetType = UNSET
    args_digest: str | None = None


class StepCall(Body, frozen=True):
    """`POST …/prepare`, `…/start` and `…/begin`. `not_received` stands outside the body's digest.

    `csr` is a certificate request in PEM, for an issuer that signs a key which the agent made. It is no part of the
    action: each attempt may have a key of its own.
    """

    epoch: int
    action: Action
    effect: Effect = "once"
    id_source: IdSource = "explicit"
    idempotency_key: str | None = None
    issuer: str | None = None
    ttl_s: int | None = None
    params: dict[str, Any] = {}
    settle_s: float = 0
    retry_failed: bool = False
    context: dict[str, Any] = {}
    not_received: bool = False
    csr: str | None = None


class RecordStep(Body, frozen=True):
    """`POST …/record`: a step without a credential. `withheld`: the result held a live secret and was not sent."""

    epoch: int
    name: str
    args: Any = None
    result: Any | UnsetType = UNSET
    withheld: bool = False
    id_source: IdSource = "explicit"


class CompleteStep(Body, frozen=True):
    """`POST …/complete`."""

    epoch: int
    attempt: int
    result: Any | UnsetType = UNSET
    withheld: bool = False


class FailStep(Body, frozen=True):
    """`POST …/fail`. `error` is a short text without secrets."""

    epoch: int
    attempt: int
    outcome: Literal["not_executed", "failed", "unknown"]
    error: str | None = None


class SuspendStep(Body, frozen=True):
    """`POST …/suspend`."""

    epoch: int
    attempt: int


class ReconcileStep(Body, frozen=True):
    """`POST …/reconcile`: by a hook (with `via` and `epoch`), or by a person (without both)."""

    attempt: int
    verdict: Literal["done", "not_done", "unknown"]
    epoch: int | None = None
    result: Any | UnsetType = UNSET
    evidence: str | None = None
    via: str | None = None


class DecideDuplicate(Body, frozen=True):
    """`POST …/duplicate`, by a person: is the call the completed step once more (`replay`), or another one (`run`)?"""

    verdict: Literal["replay", "run"]
    note: str | None = None


class Holding(Body, frozen=True):
    """`POST …/heartbeat`."""

    epoch: int


class ParkRun(Body, frozen=True):
    """`POST …/park`. `detail`: a short text without secrets. After `set_aside` a person must release the run."""

    epoch: int
    reason: Literal["awaiting_approval", "in_doubt", "suspended", "requested", "error", "set_aside"] = "requested"
    detail: str | None = None


class EndRun(Body, frozen=True):
    """`POST …/complete`, `…/fail`, `…/cancel` of a run. A person cancels without `epoch`."""

    epoch: int | None = None
    result: Any | UnsetType = UNSET


class Redeem(Body, frozen=True):
    """`POST /v1/grants/{jti}/redeem`, by a resource server."""

    redemption_id: str
    args_digest: str
    proof_jti: str


class DecideApproval(Body, frozen=True):
    """`POST /v1/approvals/{id}/decide`. `digest` is the one that was shown."""

    verdict: Literal["approve", "deny"]
    digest: str
    note: str | None = None


class RevokeGrant(Body, frozen=True):
    """`POST /v1/grants/{jti}/revoke`."""


class DeclareDead(Body, frozen=True):
    """`POST /v1/grants/{jti}/declare-dead`."""


class Switch(Body, frozen=True):
    """`POST /v1/quarantine/release`: exactly one member names what is meant."""

    run: str | None = None
    agent: str | None = None
    workload: str | None = None
    issuer: str | None = None


class Throw(Switch, frozen=True):
    """`POST /v1/quarantine`. `beforehand`: although nothing has the name yet."""

    beforehand: bool = False


class EnrollWorkload(Body, frozen=True):
    """`POST /v1/workloads`. `jwk` is the public key; `another_key`: beside a living one of the same name."""

    name: str
    jwk: dict[str, str]
    agents: list[str] = []
    audiences: list[str] = []
    another_key: bool = False


class CreateOperator(Body, frozen=True):
    """`POST /v1/operators`. `another_token`: although somebody of this name is there."""

    name: str
    roles: list[str]
    groups: list[str] = []
    another_token: bool = False


class SetSecret(Body, frozen=True):
    """`PUT /v1/secrets/{name}`. `value` is never logged and rests only wrapped."""

    value: str
    hosts: list[str]
    header: str = "Authorization"

    def __repr__(self) -> str:
        """Masked."""
        return f"SetSecret(hosts={self.hosts!r}, header={self.header!r}, value=<masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can be neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        """As `__reduce__`, which msgspec's own copying does not ask."""
        raise TypeError("a secret can be neither pickled nor copied")
