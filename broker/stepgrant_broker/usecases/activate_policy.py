"""Activate a policy revision: the text becomes evidence, the counter rises, and an entry says so.

The tenant's guard rises with it, so that no grant decided under the old revision is committed after the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, PolicyText, Query, Tenant
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import Effectuated, require_operator, tenant_call


async def next_revision(ports: Ports, digest: str) -> str:
    """The revision that activating this digest gives: the present one if nothing changes, else the next counter.

    The counter is one for the whole broker, so that all tenants speak of a policy by one name.
    """
    tenants = await ports.reads.tenants()
    newest = max((tenant.policy_counter for tenant in tenants), default=0)
    for tenant in tenants:
        if tenant.policy_counter == newest and (tenant.policy_revision or "").partition(":")[2] == digest:
            return str(tenant.policy_revision)
    return f"{newest + 1}:{digest}"


async def activate_policy(
    ports: Ports, tenant: str, person: PersonCaller | None, *, revision: str, text: Mapping[str, str]
) -> dict[str, Any]:
    """Make `revision` (`<counter>:<digest>`) the active one of the tenant. Activating it again changes nothing."""
    require_operator(person, "activate a policy")
    counter, _, digest = revision.partition(":")
    known = (await ports.store.load(Query(tenant))).tenant
    if known.policy_revision == revision:
        return {"revision": revision, "changed": False}

    def act(journal: Journal, loaded: Loaded) -> Effectuated:
        before = loaded.tenant
        body: dict[str, Any] = {"revision": revision}
        body["previous"] = before.policy_revision
        journal.add(EntryType.POLICY_ACTIVATED, body=body)
        policy = PolicyText(tenant, revision, int(counter), digest, journal.now, canonical.dumps(dict(text)))
        head = journal.head
        row = Tenant(tenant, head.seq, head.prev, head.last_ts, before.guard, revision, int(counter))
        return Effectuated({"revision": revision, "changed": True}, (policy, row), raise_guard=True)

    return await tenant_call(ports, tenant, person, call="activate policy", act=act)
