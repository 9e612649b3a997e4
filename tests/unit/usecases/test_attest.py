"""A workload that a trust rule admits is recorded before it can do anything, and only when there is something new."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.usecases.attest import record_attested


def attested(tenant: str = "acme", agents: tuple[str, ...] = ("billing",)) -> Attested:
    workload = Workload("wkl_rule", tenant, "billing", "oidc", agents, (), {}, "", 0)
    return Attested(
        workload=workload, subject="ci@acme", method="oidc", trust_domain="https://issuer.example", attributes={},
        evidence="sha-256:e", not_after=None, dead_at=0, replay=None, jkt=None,
    )  # fmt: skip


async def enrolments(broker: Hand, tenant: str = "acme") -> list[tuple[str, list[str]]]:
    """What the tenant's chain says of the rule's workload."""
    entries = [json.loads(entry.data) for entry in await broker.ports.reads.entries(tenant, None)]
    bodies = [entry["body"] for entry in entries if entry["type"] == "workload_enrolled"]
    return [(body["status"], body["agents"]) for body in bodies if body["workload"] == "wkl_rule"]


async def test_the_first_exchange_records_it_and_later_ones_do_not(broker: Hand) -> None:
    first = await record_attested(broker.ports, attested())
    before = broker.store.commits
    broker.clock.tick(60_000)
    assert await record_attested(broker.ports, attested()) == first
    assert first.enrolled_at == broker.clock.now() - 60_000
    assert await enrolments(broker) == [("attested", ["billing"])]
    assert broker.store.commits == before


async def test_other_names_are_recorded_again(broker: Hand) -> None:
    await record_attested(broker.ports, attested())
    again = await record_attested(broker.ports, attested(agents=("billing", "refunds")))
    assert again.agents == ("billing", "refunds")
    assert await enrolments(broker) == [("attested", ["billing"]), ("attested", ["billing", "refunds"])]


class LookTogether:
    """The broker's own reads; whoever looks a workload up goes on when another has looked as well."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._both = asyncio.Barrier(2)
        self._looks = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the reads have
        return getattr(self._reads, name)

    async def workload(self, workload: str) -> Workload | None:
        row = await self._reads.workload(workload)
        self._looks += 1
        if self._looks <= self._both.parties:
            await self._both.wait()
        return row


async def test_of_two_exchanges_at_once_one_records_it(broker: Hand) -> None:
    """Both look before either has written."""
    ports = replace(broker.ports, reads=LookTogether(broker.ports.reads))
    first, second = await asyncio.gather(*(record_attested(ports, attested()) for _ in range(2)))
    assert first == second == await broker.ports.reads.workload("wkl_rule")
    assert await enrolments(broker) == [("attested", ["billing"])]


async def test_a_tenant_may_begin_with_it(broker: Hand) -> None:
    await record_attested(broker.ports, attested("newcomer"))
    assert await enrolments(broker, "newcomer") == [("attested", ["billing"])]


async def test_an_enrolled_workload_was_recorded_by_whoever_enrolled_it(broker: Hand) -> None:
    seen = replace(attested(), workload=broker.workload)
    before = broker.store.commits
    assert await record_attested(broker.ports, seen) is broker.workload
    assert broker.store.commits == before


async def test_what_cannot_be_recorded_is_nobody(broker: Hand) -> None:
    def full() -> None:
        raise OSError(28, "no space left")

    broker.failpoints.armed = {"store.before_apply": full}
    with pytest.raises(StoreUnavailable):
        await record_attested(broker.ports, attested())
    broker.failpoints.armed = {}
    assert await enrolments(broker) == []
    assert await broker.ports.reads.workload("wkl_rule") is None
