"""What whoever administers the broker's own machine does without a token: enrol workloads and create people.

These are the same use cases as over HTTP, with nobody as the person: the entry says `local administrator`. A key file
appears only after its enrolment is recorded, with mode 0600, and never replaces another file. A name may be there
already: these are for development and tests, where whoever calls means it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stepgrant._exchange import WorkloadKey
from stepgrant._keys import SecretKey
from stepgrant.errors import ConfigurationError
from stepgrant_broker.usecases.activate_policy import activate_policy
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.operators import create_operator

if TYPE_CHECKING:
    from stepgrant_broker.wiring.broker import Broker


async def ensure_tenant(broker: Broker, tenant: str) -> None:
    """Give a tenant the active policy, which begins it if it is new. Raises `InvalidRequest`, `StoreUnavailable`."""
    revision, bundle = broker.policy.revision, broker.policy.bundle
    if revision is not None and bundle is not None:
        await activate_policy(broker.ports, tenant, None, revision=revision, text=bundle.files)


async def enrol_workload(
    broker: Broker,
    path: Path,
    name: str,
    *,
    agents: Iterable[str] = (),
    audiences: Iterable[str] = (),
    tenant: str | None = None,
) -> WorkloadKey:
    """Make a key, enrol it, and write its file. Raises `ConfigurationError` if the file exists, `InvalidRequest`."""
    if await asyncio.to_thread(path.exists):
        raise ConfigurationError(f"{path} exists; a key file is never replaced")
    secret = SecretKey.generate()
    new = Enrolment(name, tuple(agents), tuple(audiences), secret.public.jwk, secret.public.jkt, another_key=True)
    answer = await enroll(broker.ports, tenant or broker.settings.tenant, None, new)
    key = WorkloadKey(str(answer["id"]), secret)
    await asyncio.to_thread(key.save, path)
    return key


async def ensure_workload(
    broker: Broker, path: Path, name: str, *, agents: Iterable[str] = (), audiences: Iterable[str] = ()
) -> WorkloadKey:
    """The key in this file if it is still enrolled for exactly this; else a new one, beside which the old one stays."""
    agents, audiences = tuple(sorted(set(agents))), tuple(sorted(set(audiences)))
    if await asyncio.to_thread(path.exists):
        key = await asyncio.to_thread(WorkloadKey.load, path)
        known = await broker.ports.reads.workload(key.workload_id)
        if (
            known is not None
            and known.removed_at is None
            and known.jkt == key.jkt
            and (known.tenant, known.name) == (broker.settings.tenant, name)
            and (known.agents, known.audiences) == (agents, audiences)
        ):
            return key
        await asyncio.to_thread(path.rename, path.with_name(f"{path.name}.{key.workload_id}.old"))
    return await enrol_workload(broker, path, name, agents=agents, audiences=audiences)


async def new_operator(
    broker: Broker,
    name: str,
    *,
    roles: Iterable[str] = ("approver", "operator"),
    groups: Iterable[str] = (),
    tenant: str | None = None,
) -> tuple[str, str]:
    """Create a person; id and token. The token is nowhere else. Raises `InvalidRequest`."""
    answer = await create_operator(
        broker.ports, tenant or broker.settings.tenant, None, name=name, roles=roles, groups=groups, another_token=True
    )
    return str(answer["id"]), str(answer["token"])
