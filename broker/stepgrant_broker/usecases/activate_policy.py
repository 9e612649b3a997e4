"""Activate a policy revision: the text becomes evidence, the counter rises, and an entry says so.

The tenant's guard rises with it, so that no grant decided under the old revision is committed after the new one. The
counter of a tenant only rises: of two replicas that activate beside each other one is told that it came late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import PolicySuperseded, PolicyUnavailable
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, PolicyText, Query, Tenant
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import Effectuated, require_operator, tenant_call


async def next_revision(ports: Ports, digest: str) -> str:
    """The revision that activating this digest gives: the present one if nothing changes, else the next counter.

    The counter is one for the whole broker, so that all tenants speak of a policy by one name.
    """
    newest = newest_revision(await ports.reads.tenants())
    if newest is None:
        return f"1:{digest}"
    counter, _, active = newest.partition(":")
    return newest if active == digest else f"{int(counter) + 1}:{digest}"


def newest_revision(tenants: Iterable[Tenant]) -> str | None:
    """The revision that is active in this broker; None before the first. A tenant may not have come to it yet."""
    known = [(tenant.policy_counter, tenant.policy_revision) for tenant in tenants if tenant.policy_revision]
    return max(known)[1] if known else None


async def is_in_force(ports: Ports, digest: str) -> bool:
    """Whether the policy with this digest is the one that decides in this broker. Raises `StoreUnavailable`."""
    newest = newest_revision(await ports.reads.tenants())
    return newest is not None and newest.partition(":")[2] == digest


async def refuse_superseded(ports: Ports, digest: str, returns: Callable[[int], bool]) -> None:
    """Raises `PolicySuperseded` for a policy that was active before, unless it `returns` after this counter."""
    tenants = await ports.reads.tenants()
    newest = newest_revision(tenants)
    if newest is None or newest.partition(":")[2] == digest or returns(int(newest.partition(":")[0])):
        return
    for tenant in tenants:
        for one in await ports.reads.policies(tenant.id):
            if one.digest == digest:
                raise PolicySuperseded(
                    f"this broker has the policy of revision {one.revision}, whose place {newest} has taken; give it "
                    f"the newer files, or say that it is to come back: policy_instead_of={newest.partition(':')[0]}",
                    retry_after_ms=1000,
                )


async def activate_policy(
    ports: Ports, tenant: str, person: PersonCaller | None, *, revision: str, text: Mapping[str, str]
) -> dict[str, Any]:
    """Make `revision` (`<counter>:<digest>`) the active one of the tenant. Activating it again changes nothing.

    Raises `PolicyUnavailable` where the tenant has another revision of this counter, or of a later one.
    """
    require_operator(person, "activate a policy")
    counter, _, digest = revision.partition(":")
    known = (await ports.store.load(Query(tenant))).tenant
    if known.policy_revision == revision:
        return {"revision": revision, "changed": False}

    def act(journal: Journal, loaded: Loaded) -> Effectuated:
        before = loaded.tenant
        if before.policy_revision is not None and before.policy_counter >= int(counter):
            raise PolicyUnavailable(f"{before.policy_revision} became active meanwhile", retry_after_ms=1000)
        body: dict[str, Any] = {"revision": revision}
        body["previous"] = before.policy_revision
        journal.add(EntryType.POLICY_ACTIVATED, body=body)
        policy = PolicyText(tenant, revision, int(counter), digest, journal.now, canonical.dumps(dict(text)))
        head = journal.head
        row = Tenant(tenant, head.seq, head.prev, head.last_ts, before.guard, revision, int(counter))
        return Effectuated({"revision": revision, "changed": True}, (policy, row), raise_guard=True)

    return await tenant_call(ports, tenant, person, call="activate policy", act=act)
