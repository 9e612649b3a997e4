"""Folding a tenant's own chain: enrolments, people, policy, secrets and kill switches, as their entries say.

The domain folds runs; administration writes its rows beside its entries (`usecases/tenant_call.py`). So this fold is
the second opinion: a key that was exchanged in the workloads table, or a role added to a person, is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stepgrant_broker.domain.entries import GENESIS, Entry, EntryType
from stepgrant_broker.domain.writes import Operator, Quarantine, Workload

if TYPE_CHECKING:
    from stepgrant._receipt_entries import Event


@dataclass(frozen=True, slots=True)
class Secret:
    """What entries say of a static secret."""

    hosts: tuple[str, ...]
    header: str
    set_at: int


@dataclass(frozen=True, slots=True)
class Restored:
    """That the store was put back to `size` leaves, and what the log was called before and after."""

    size: int
    before: str | None
    after: str


@dataclass(slots=True)
class TenantView:
    """What a tenant's chain folds to. `policies` maps each revision to the time of its activation.

    `restored` is about the installation: the same is entered in every tenant's chain.
    """

    seq: int = 0
    head: str = GENESIS
    last_ts: int = 0
    revision: str | None = None
    workloads: dict[str, Workload] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    switches: dict[tuple[str, str], Quarantine] = field(default_factory=dict)
    policies: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    restored: list[Restored] = field(default_factory=list)

    def apply(self, entry: Entry, event: Event) -> None:
        """Fold one entry of the tenant's chain."""
        body: Mapping[str, Any] = entry.fields["body"]
        match entry.type:
            case EntryType.WORKLOAD_ENROLLED:
                self._workload(entry, body)
            case EntryType.POLICY_ACTIVATED:
                self.revision = body["revision"]
                self.policies[body["revision"]] = entry.ts
            case EntryType.OPERATOR_ACTION:
                self._action(entry, body)
            case EntryType.STORE_RESTORED:
                self.restored.append(Restored(body["size"], body.get("previous_origin"), body["origin"]))
            case _:
                pass
        self.seq, self.head, self.last_ts = entry.seq + 1, event.hash, entry.ts

    def _workload(self, entry: Entry, body: Mapping[str, Any]) -> None:
        if body["status"] == "removed":
            known = self.workloads[body["workload"]]
            self.workloads[known.id] = replace(known, removed_at=entry.ts)
            # Removing it puts a switch on it that releases itself; one that people had thrown gives way to it.
            self.switches.pop(("workload", known.id), None)
            return
        self.workloads[body["workload"]] = Workload(
            id=body["workload"],
            tenant=entry.tenant,
            name=body["name"],
            kind=body["kind"],
            agents=tuple(body["agents"]),
            audiences=tuple(body["audiences"]),
            jwk=body["jwk"],
            jkt=body["jkt"],
            enrolled_at=entry.ts,
        )

    def _action(self, entry: Entry, body: Mapping[str, Any]) -> None:
        match body["action"]:
            case "operator_created":
                self.operators[body["operator"]] = Operator(
                    id=body["operator"],
                    tenant=entry.tenant,
                    name_c=body["name_c"],
                    roles=tuple(body["roles"]),
                    groups=tuple(body["groups"]),
                    token_hash=body["token_hash"],
                    created_at=entry.ts,
                )
            case "operator_removed":
                known = self.operators[body["operator"]]
                self.operators[known.id] = replace(known, removed_at=entry.ts)
            case "quarantined":
                kind, name = body["target"]["kind"], body["target"]["name"]
                self.switches[kind, name] = Quarantine(entry.tenant, kind, name, entry.ts)
            case "released":
                del self.switches[body["target"]["kind"], body["target"]["name"]]
            case "secret_set":
                detail = body["detail"]
                self.secrets[body["target"]] = Secret(tuple(detail["hosts"]), detail["header"], entry.ts)
            case "secret_removed":
                del self.secrets[body["target"]]
            case _:
                pass
