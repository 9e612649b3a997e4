"""What an agent asks of one step, as plain values (`protocol.md` §2), and what may be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from stepgrant_broker.domain.decisions import Effect, Json
from stepgrant_broker.domain.state import Approval, Grant, IdSource, Step


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """A certificate request (PEM), and the name of its public key: `sha-256:` of its SubjectPublicKeyInfo."""

    pem: str
    key: str


class StepCall(Struct, frozen=True):
    """The body of prepare, start and begin. `preimage` is the JCS action, or `None` when only its digest came."""

    step: str
    epoch: int
    tool: str
    resource: str | None
    args: Json
    digest: str
    preimage: bytes | None
    effect: Effect
    id_source: IdSource
    idempotency_key: str | None = None
    issuer: str | None = None
    ttl_s: int | None = None
    params: Mapping[str, Json] | None = None
    settle_ms: int = 0
    retry_failed: bool = False
    context: Mapping[str, Json] | None = None
    not_received: bool = False
    csr: CertificateOrder | None = None


class Ready(Struct, frozen=True):
    """Policy allows: prepare's advice, or with a grant the real thing."""

    step: Step
    grant: Grant | None = None


class Replayed(Struct, frozen=True):
    """The recorded outcome: a result (`step.result_c`) or a failure (`step.error_c`)."""

    step: Step


class Refusal(Struct, frozen=True):
    """Policy, or a person, says no."""

    reasons: tuple[str, ...]
    decision_id: str | None


class Waiting(Struct, frozen=True):
    """A person must answer first."""

    approval: Approval


class Doubtful(Struct, frozen=True):
    """The step's outcome is not known. `blocked`: the call is another one, which has to wait for that."""

    step: Step
    blocked: bool = False


class Suspected(Struct, frozen=True):
    """The step may be the completed step `of` once more; a person says which."""

    step: Step
    of: str


class BeingRevoked(Struct, frozen=True):
    """The credential of an equal call, which nobody received, is being taken back; then the call can come again."""

    step: str


Settled: TypeAlias = Ready | Replayed | Refusal | Waiting | Doubtful | Suspected


class Ask(Struct, frozen=True):
    """Policy must decide: for this attempt of this step. `equal_to`: the completed step that it may be once more."""

    attempt: int
    revision: int
    new: bool
    previous_outcome: str | None
    equal_to: str | None = None
