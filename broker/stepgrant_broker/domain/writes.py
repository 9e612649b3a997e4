"""What use cases ask of the store and give to it: a query, what came back, and a write set.

Rules:
* A write set is applied whole or not at all, and only if the chain stands where the decision saw it (`expect_seq`),
  the tenant's guard has not moved (`guard`), and the proof's `jti` is new.
* Rows are domain values; the store maps them to tables. A row is written whole, by its identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct, field

from stepgrant_broker.domain.commitments import Kept, Payload
from stepgrant_broker.domain.entries import Entry, Head
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.state import Approval, Epoch, Grant, Run, Step, View


class Tenant(Struct, frozen=True):
    """A tenant's own chain and guard. Every grant's commit compares `guard`; the kill switch raises it."""

    id: str
    seq: int
    head: str
    last_ts: int
    guard: int = 0
    policy_revision: str | None = None
    policy_counter: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """An enrolment: the names and audiences a workload may claim. `jwk` is public."""

    id: str
    tenant: str
    name: str
    kind: str
    agents: tuple[str, ...]
    audiences: tuple[str, ...]
    jwk: Mapping[str, str]
    jkt: str
    enrolled_at: int
    removed_at: int | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """A person. The name stands only behind its commitment, the token only as its SHA-256 (hexadecimal)."""

    id: str
    tenant: str
    name_c: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    token_hash: str
    created_at: int
    removed_at: int | None = None


class Quarantine(Struct, frozen=True):
    """A kill switch thrown on an agent name, a workload or an issuer of the tenant.

    It holds until `released_at` (ms; `None`: for ever), which may lie in the future: a removed workload is held for as
    long as any token of it could live.
    """

    tenant: str
    kind: str
    name: str
    at: int
    released_at: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyText:
    """An activated revision with its text (JCS of path to source), which is evidence too."""

    tenant: str
    revision: str
    counter: int
    digest: str
    activated_at: int
    text: bytes


class ChainKey(Struct, frozen=True):
    """The wrapped `k_run` of a run (`run` is a run id) or of a tenant's own chain (`run` is empty)."""

    tenant: str
    run: str
    wrapped: Wrapped


class StoredAnswer(Struct, frozen=True):
    """What an Idempotency-Key was answered: `body_c` commits to the request, `answer_c` names the payload."""

    scope: str
    tenant: str
    run: str
    body_c: str
    status: int
    answer_c: str | None
    expires_at: int


class ProofUse(Struct, frozen=True):
    """One use of a DPoP proof; `id` is the SHA-256 of key thumbprint and `jti`."""

    id: str
    expires_at: int


Row: TypeAlias = (
    Run | Epoch | Step | Grant | Approval | Tenant | Workload | Operator | Quarantine | PolicyText | ChainKey
    | SecretRecord
)  # fmt: skip


class WriteSet(Struct, frozen=True):
    """One call's whole change to one chain. `run` is `None` for the tenant's own chain.

    `expect_seq` is the chain's length that the decision saw (0: the run must not exist yet). `lease_until` moves the
    run's lease; `None` leaves it. `raise_guard` is the only way to move the tenant's guard (a `Tenant` row leaves it).
    `erase` names the commitments whose payloads are dropped with this commit. `key` is the chain's wrapped key, under
    which the payloads are sealed; a chain that begins brings it along as a row. `destroy` drops everything that stands
    behind the run's commitments, its key with it; `answers_gone` is for the store, which finds the stored answers,
    unless `answers_over`: the time of those is over, or nearly, and they go by themselves.
    """

    tenant: str
    run: str | None
    expect_seq: int
    entries: tuple[Entry, ...] = ()
    rows: tuple[Row, ...] = ()
    payloads: tuple[Payload | Kept, ...] = ()
    guard: int | None = None
    raise_guard: bool = False
    lease_until: int | None = None
    proof: ProofUse | None = None
    answer: StoredAnswer | None = None
    erase: tuple[str, ...] = ()
    key: ChainKey | None = None
    destroy: bool = False
    answers_gone: tuple[str, ...] = ()
    answers_over: bool = False


@dataclass(frozen=True, slots=True)
class Sought:
    """Steps that a new call may be the same as, or has to wait for (`domain.lost_ids`), the oldest of each kind.

    `lost`: equal ones (tool, `digest_c`) with an unknown outcome, or about which people were asked, and completed ones
    with a call id that were not given again in this epoch. `doubt`: `once` steps in doubt of the tool, equal ones or of
    earlier epochs on the same resource.
    """

    tool: str
    digest_c: str
    resource_c: str | None
    lost: bool
    doubt: bool


class Query(Struct, frozen=True):
    """What a use case needs. A run is named by `run`, by `run_key` (agent, key), by `grant` or by `approval`.

    `step`: that step (and `also`), its grants and approvals, and older epochs' effectful grants that may live.
    `unfinished`: all steps without result, all open grants, all approvals that are unconsumed or spent by those grants,
    and older effectful grants.
    `grant` and `approval` also load that grant or approval with its step. `run_key` and `unfinished` load all epochs.
    `answer`: the stored answer of this scope, with its payload. With `step`, the payloads behind its result and error
    come along; with `run_key`, the run's input; with `approval`, the approved step's action and resource; always the
    run's principal, if it has one. `sought`: steps that are found by their action, each with its grants, approvals and
    payloads.
    """

    tenant: str
    run: str | None = None
    run_key: tuple[str, str] | None = None
    grant: str | None = None
    approval: str | None = None
    step: str | None = None
    also: tuple[str, ...] = ()
    unfinished: bool = False
    answer: str | None = None
    sought: Sought | None = None


class Loaded(Struct, frozen=True):
    """One consistent view. `now` is the store's clock; `key` the chain's wrapped key (the tenant's without a run)."""

    now: int
    tenant: Tenant
    view: View = field(default_factory=View)
    lease_until: int = 0
    key: ChainKey | None = None
    tenant_key: ChainKey | None = None
    quarantines: tuple[Quarantine, ...] = ()
    answer: StoredAnswer | None = None
    payloads: Mapping[str, Payload] = field(default_factory=dict)

    def head(self) -> Head:
        """Where the run's chain stands."""
        run = self.view.run
        if run is None:
            return Head(self.tenant.id, None, self.tenant.seq, self.tenant.head, self.tenant.last_ts)
        return Head(run.tenant, run.id, run.seq, run.head, run.last_ts)
