"""Who calls, as `api/` proved it. Nothing here comes from the request itself (`protocol.md` §1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from stepgrant_broker.domain.writes import ProofUse, Workload


class AgentCaller(Struct, frozen=True):
    """A workload with an access token bound to its key. Times in ms; `proof` is this call's DPoP proof."""

    tenant: str
    subject: str
    method: str
    trust_domain: str
    attributes: Mapping[str, str]
    workload: Workload
    jkt: str
    attested_at: int
    not_after: int
    evidence: str
    proof: ProofUse
    proof_jti: str


@dataclass(frozen=True, slots=True)
class PersonCaller:
    """A person with an operator token; roles and groups are those of the record, never of the request."""

    tenant: str
    id: str
    name: str
    roles: frozenset[str]
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Request:
    """What every changing call carries: its Idempotency-Key and the JCS bytes of its body (for the comparison).

    The body may be a secret on its way to be wrapped.
    """

    idempotency_key: str
    body: bytes = field(repr=False)
    target: str = ""
