"""Several brokers and tenants under one policy: who is left behind is not ready, and nobody rolls the others back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.wired import Made, says
from stepgrant_broker.api.health import Health
from stepgrant_broker.domain.errors import PolicySuperseded, PolicyUnavailable
from stepgrant_broker.domain.refusals import RevisionMoved
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.activate_policy import activate_policy
from stepgrant_broker.usecases.deciding import decide
from stepgrant_broker.usecases.operators import create_operator
from stepgrant_broker.wiring import Broker, bundle_of


@dataclass
class Fleet:
    """Replicas over one database, each with a policy folder of its own."""

    made: Made
    root: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def files(self, name: str, word: str) -> Path:
        """Write the policy that this replica is given."""
        folder = self.root / name
        for path, text in says(word).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    async def start(self, name: str, word: str, **changed: Any) -> Broker:  # noqa: ANN401 - settings
        """Start a replica with these files."""
        return await self.stack.enter_async_context(self.made(policy_dir=self.files(name, word), **changed))


@pytest.fixture
async def fleet(made: Made, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(made, tmp_path)
    async with fleet.stack:
        yield fleet


async def revision(broker: Broker, tenant: str = "default") -> str | None:
    return (await broker.ports.store.load(Query(tenant))).tenant.policy_revision


async def policy_is(broker: Broker) -> str:
    return (await Health(broker.ports).checks())["policy"]


def outdated(broker: Broker) -> bool:
    """What an alarm would see."""
    return "stepgrant_policy_outdated 1" in broker.metrics.text().splitlines()


async def within(true: Any, patience_s: float = 60) -> None:  # noqa: ANN401 - asked and awaited
    async with asyncio.timeout(patience_s):
        while not await true():  # noqa: ASYNC110 - what is waited for gives no event
            await asyncio.sleep(0.05)


async def test_a_replica_that_was_left_behind_is_not_ready_and_follows_with_its_files(
    fleet: Fleet, events: list[MutableMapping[str, Any]]
) -> None:
    first = await fleet.start("a", "old")
    assert await policy_is(first) == "ok"
    second = await fleet.start("b", "new")
    active = await revision(first)
    assert active == second.policy.revision
    assert [await policy_is(one) for one in (first, second)] == ["failed", "ok"]
    with pytest.raises(RevisionMoved):
        await decide(first.ports, b"{}", active)

    async def told() -> bool:
        return any(one["event"] == "policy_left_behind" for one in events)

    await within(told)
    assert first.policy.revision != active
    assert [outdated(one) for one in (first, second)] == [True, False]
    fleet.files("a", "new")

    async def ready() -> bool:
        return await policy_is(first) == "ok"

    await within(ready)
    assert first.policy.revision == active

    async def told_as_well() -> bool:
        return not outdated(first)

    await within(told_as_well)
    assert (await decide(first.ports, b"{}", active)).revision == active
    assert len(await first.ports.reads.policies("default")) == 2


async def test_the_text_in_the_database_is_never_followed(fleet: Fleet, events: list[MutableMapping[str, Any]]) -> None:
    """Who can only write there would decide what agents may do."""
    first = await fleet.start("a", "old")
    own = first.policy.revision
    text = says("planted")
    await activate_policy(
        first.ports, "default", None, revision=f"2:{bundle_of(text).digest}", text=bundle_of(text).files
    )

    async def decided() -> bool:
        return first.policy.revision != own or any(one["event"] == "policy_left_behind" for one in events)

    await within(decided)
    assert first.policy.revision == own
    assert await policy_is(first) == "failed"


async def test_a_start_with_old_files_rolls_nobody_back(fleet: Fleet) -> None:
    await fleet.start("a", "old")
    second = await fleet.start("b", "new")
    active = second.policy.revision
    for changed in ({}, {"policy_instead_of": 1}, {"policy_instead_of": 3}):
        with pytest.raises(PolicySuperseded, match=r"has the policy of revision 1:.*policy_instead_of=2"):
            await fleet.start("c", "old", **changed)
    assert await revision(second) == active
    assert await policy_is(second) == "ok"
    assert len(await second.ports.reads.policies("default")) == 2


async def test_somebody_may_say_that_it_comes_back_once(fleet: Fleet) -> None:
    await fleet.start("a", "old")
    await fleet.start("b", "new")
    third = await fleet.start("c", "old", policy_instead_of=2)
    assert str(third.policy.revision).startswith("3:")
    again = await fleet.start("d", "old", policy_instead_of=2)
    assert again.policy.revision == third.policy.revision
    await fleet.start("e", "newest")
    with pytest.raises(PolicySuperseded):
        await fleet.start("d", "old", policy_instead_of=2)


async def test_of_two_that_activate_beside_each_other_one_is_told_that_it_came_late(fleet: Fleet) -> None:
    first = await fleet.start("a", "old")
    new, other = bundle_of(says("new")), bundle_of(says("other"))
    await activate_policy(first.ports, "default", None, revision=f"2:{new.digest}", text=new.files)
    for counter in (1, 2):
        with pytest.raises(PolicyUnavailable, match="became active meanwhile"):
            await activate_policy(first.ports, "default", None, revision=f"{counter}:{other.digest}", text=other.files)
    assert await revision(first) == f"2:{new.digest}"


async def test_a_tenant_that_begins_at_run_time_gets_the_policy(fleet: Fleet) -> None:
    broker = await fleet.start("a", "old")
    await create_operator(broker.ports, "acme", None, name="Olga", roles=["operator"])

    async def has_it() -> bool:
        return await revision(broker, "acme") == broker.policy.revision

    await within(has_it)
    active = str(broker.policy.revision)
    assert (await decide(broker.ports, b"{}", await revision(broker, "acme"))).revision == active


TRUST = """
[[issuer]]
name = "mesh"
method = "spiffe-jwt"
tenant = "trusted"
trust_domain = "prod.example"
jwks_file = "bundle.json"

[[rule]]
issuer = "mesh"
workload = "shop"
agents = ["shop"]
path = "/servers/shop"
"""


async def test_a_tenant_of_the_trust_file_has_the_policy_before_its_first_workload_comes(
    fleet: Fleet, tmp_path: Path
) -> None:
    trust = tmp_path / "trust.toml"
    trust.write_text(TRUST)
    (tmp_path / "bundle.json").write_text('{"keys": []}')
    broker = await fleet.start("a", "old", trust_file=trust)
    assert await revision(broker, "trusted") == broker.policy.revision
