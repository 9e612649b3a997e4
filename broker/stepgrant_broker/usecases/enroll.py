"""Enrol a workload: its public key, the agent names it may claim, or the audiences it serves (`protocol.md` §1).

Rules:
* A workload is its name (`workload:<tenant>/<name>` is what policy sees): whoever has a key of that name is the same
  workload, and may resume its runs. So a second key of a living name has to be meant (`another_key`), as when keys are
  changed: enrol another one, hand it over, remove the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import Conflict, InvalidRequest, NotFound
from stepgrant_broker.domain.ids import NAME
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Quarantine, Workload
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import Effectuated, require_operator, tenant_call

AUDIENCE_MAX = 500
NAMES_MAX = 100
TOKENS_GONE_MS = 3_600_000
ENROLLED_KEY = "enrolled_key"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A workload as an operator enrols it. `jkt` is the RFC 7638 thumbprint of `jwk` (public members only)."""

    name: str
    agents: tuple[str, ...]
    audiences: tuple[str, ...]
    jwk: Mapping[str, str]
    jkt: str
    another_key: bool = False
    """It is meant that the name has another living key."""


def refuse_bad_enrolment(new: Enrolment) -> None:
    """Raises `InvalidRequest`, naming the member."""
    if not NAME.fullmatch(new.name):
        raise InvalidRequest("name is letters, digits and . _ / : @ -", field="name")
    if not new.agents and not new.audiences:
        raise InvalidRequest("name at least one agent, or one audience of a resource server", field="agents")
    if len(new.agents) > NAMES_MAX or any(not NAME.fullmatch(agent) for agent in new.agents):
        raise InvalidRequest("agents are names of letters, digits and . _ / : @ -", field="agents")
    if len(new.audiences) > NAMES_MAX or any(not 1 <= len(a) <= AUDIENCE_MAX for a in new.audiences):
        raise InvalidRequest(f"audiences are 1 to {AUDIENCE_MAX} characters", field="audiences")
    if "d" in new.jwk:
        raise InvalidRequest("this is a private key; send only its public members", field="jwk")


def view(workload: Workload) -> dict[str, Any]:
    """A workload on the wire."""
    return {
        "id": workload.id,
        "name": workload.name,
        "kind": workload.kind,
        "agents": list(workload.agents),
        "audiences": list(workload.audiences),
        "jkt": workload.jkt,
        "enrolled_at": workload.enrolled_at,
        "removed_at": workload.removed_at,
    }


async def enroll(
    ports: Ports, tenant: str, person: PersonCaller | None, new: Enrolment, request: Request | None = None
) -> dict[str, Any]:
    """Enrol. `person` is `None` for the local administrator. Raises `Conflict`, `Forbidden`, `InvalidRequest`."""
    require_operator(person, "enrol a workload")
    refuse_bad_enrolment(new)
    rows = [one for one in await ports.reads.workloads(tenant) if (one.name, one.kind) == (new.name, ENROLLED_KEY)]
    living = [one.id for one in rows if one.removed_at is None]

    def act(journal: Journal, _: Loaded) -> Effectuated:
        if living and not new.another_key:
            raise Conflict(
                f"{new.name} is enrolled already ({living[0]}), and its name is its identity: another key of this "
                "name may resume its runs; say another_key if that is meant, or take another name",
                field="name",
            )
        workload = Workload(
            id="wkl_" + ports.ids.ulid(journal.now),
            tenant=tenant,
            name=new.name,
            kind=ENROLLED_KEY,
            agents=tuple(sorted(set(new.agents))),
            audiences=tuple(sorted(set(new.audiences))),
            jwk=dict(new.jwk),
            jkt=new.jkt,
            enrolled_at=journal.now,
        )
        write_workload(journal, workload, "enrolled")
        return Effectuated(view(workload), (workload,))

    try:
        return await tenant_call(ports, tenant, person, call="enroll", act=act, request=request)
    finally:
        ports.served.forget(tenant)


def write_workload(journal: Journal, workload: Workload, status: str) -> None:
    """Write what a workload is from here on: `enrolled`, `attested` or `removed`."""
    journal.add(
        EntryType.WORKLOAD_ENROLLED,
        body={
            "workload": workload.id,
            "kind": workload.kind,
            "name": workload.name,
            "agents": list(workload.agents),
            "audiences": list(workload.audiences),
            "status": status,
            "jwk": dict(workload.jwk),
            "jkt": workload.jkt,
        },
    )


async def unenroll(
    ports: Ports, tenant: str, person: PersonCaller | None, workload_id: str, request: Request | None = None
) -> dict[str, Any]:
    """Remove an enrolment; the tenant's guard rises, so that no grant in flight outruns it. Raises `NotFound`."""
    require_operator(person, "remove a workload")
    known = await ports.reads.workload(workload_id)
    if known is None or known.tenant != tenant or known.removed_at is not None:
        raise NotFound("no such workload")
    if known.kind != ENROLLED_KEY:
        raise InvalidRequest(
            "this workload is admitted by a rule of the trust file: take the rule out, or quarantine the workload",
            field="workload",
        )

    def act(journal: Journal, _: Loaded) -> Effectuated:
        gone = replace(known, removed_at=journal.now)
        write_workload(journal, gone, "removed")
        # Its tokens outlive the enrolment by minutes; the switch, compared by every commit, does not let them act.
        held = Quarantine(tenant, "workload", workload_id, journal.now, released_at=journal.now + TOKENS_GONE_MS)
        return Effectuated(view(gone), (gone, held), raise_guard=True)

    try:
        return await tenant_call(ports, tenant, person, call="unenroll", act=act, request=request)
    finally:
        ports.served.forget(tenant)
