"""Names that people type: which are known, and which one was probably meant."""

from __future__ import annotations

import asyncio
import difflib
import itertools
from collections.abc import Iterable
from typing import Final

from stepgrant_broker.usecases.context import Ports

AMONG: Final = 2_000
NEAR: Final = 3
"""Names that are offered in place of one that is not known."""


async def is_known(ports: Ports, tenant: str, kind: str, name: str) -> bool:
    """Whether a kill switch on this agent, workload or issuer is on anything: now, or in the record."""
    if name in await names_of(ports, tenant, kind):
        return True
    if any((one.kind, one.name) == (kind, name) for one in await ports.reads.quarantines(tenant)):
        return True
    if kind == "agent":
        return await ports.reads.had_runs(tenant, name)
    if kind == "issuer":
        return bool(await ports.reads.held(tenant, agent=None, workload=None, issuer=name))
    return False


async def names_of(ports: Ports, tenant: str, kind: str) -> frozenset[str]:
    """The names of this kind that enrolments and configuration know, also of workloads that were removed."""
    if kind == "issuer":
        return frozenset(ports.issuers)
    rows = await ports.reads.workloads(tenant)
    if kind == "agent":
        return frozenset(agent for row in rows for agent in row.agents)
    return frozenset(name for row in rows for name in (row.id, row.name))


async def near(name: str, known: Iterable[str]) -> str:
    """`; near: a, b`, or nothing where none is. On a thread, and among so many: a switch must hold up nobody."""
    some = list(itertools.islice(sorted(known), AMONG))
    found = await asyncio.to_thread(difflib.get_close_matches, name, some, NEAR)
    return f"; near: {', '.join(found)}" if found else ""
