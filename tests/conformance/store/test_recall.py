"""What `recall` gives is what `load` shows, unless somebody else wrote; and then no commit rests on it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock, a_grant, a_step, an_answer, an_approval, unique
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.domain.refusals import GuardMoved, VersionMoved
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import ChainKey, Loaded, Query, Row

LEASE = NOW + 30_000


class Opened:
    """A run with its key, that this store opened and looked at once."""

    def __init__(self, store: AnyStore, chain: Chain) -> None:
        self.store, self.chain = store, chain
        self.id = chain.the_run.id

    def query(self, step: str = "new", **more: object) -> Query:
        return replace(Query("acme", run=self.id, step=step, answer=unique("scope")), **more)

    async def add(self, *rows: Row, lease: int | None = LEASE) -> None:
        await self.store.commit(self.chain.adds(1, rows=rows, lease_until=lease))

    async def recalled(self, step: str = "new") -> Loaded | None:
        """What is recalled of the step, which is what a look shows."""
        query = self.query(step)
        known = self.store.recall(query)
        assert known in (None, await self.store.load(query))
        return known


@pytest.fixture
async def opened(store: AnyStore) -> Opened:
    chain = Chain.of_run()
    key = ChainKey("acme", chain.the_run.id, Wrapped("kek", b"n" * 12, b"c" * 48))
    run = Opened(store, chain)
    await run.add(key)
    await store.load(run.query())
    return run


async def test_a_new_step_and_a_started_one(opened: Opened) -> None:
    assert (found := await opened.recalled()) is not None
    assert (found.view.steps, found.lease_until) == ({}, LEASE)
    step = a_step(opened.chain.the_run)
    grant = a_grant(opened.chain.the_run, step.key)
    await opened.add(step, grant)
    assert (found := await opened.recalled(step.key)) is not None
    assert (found.view.steps, found.view.grants) == ({step.key: step}, {grant.jti: grant})
    await opened.add(replace(step, attempt=2), replace(grant, redeemed_at=NOW), lease=LEASE + 1)
    assert (found := await opened.recalled(step.key)) is not None
    assert (found.view.steps[step.key].attempt, found.lease_until) == (2, LEASE + 1)
    assert found.view.grants[grant.jti].redeemed_at == NOW


async def test_the_present_is_the_stores(opened: Opened, clock: SetClock) -> None:
    clock.time = NOW + 7
    assert (found := await opened.recalled()) is not None
    assert found.now == NOW + 7


async def test_what_is_not_plain_is_looked_up(opened: Opened) -> None:
    run, step = opened.chain.the_run, a_step(opened.chain.the_run)
    answer = an_answer(opened.chain)
    await opened.store.commit(opened.chain.adds(1, rows=(step,), lease_until=LEASE, answer=answer))
    query = opened.query(step.key)
    assert opened.store.recall(query) is not None
    others = (
        {"answer": answer.scope}, {"also": ("other",)}, {"unfinished": True}, {"grant": "jti"}, {"approval": "apr"},
        {"run_key": (run.agent, run.key)}, {"step": None}, {"run": "run_other"}, {"tenant": "other"},
    )  # fmt: skip
    for other in others:
        assert opened.store.recall(replace(query, **other)) is None
    await opened.add(replace(step, result_c="r_c"))
    assert opened.store.recall(query) is None
    assert await opened.recalled() is not None


@pytest.mark.parametrize("change", ["parked", "resumed", "asked", "erased"])
async def test_a_run_that_is_no_plain_one_any_more_is_forgotten(opened: Opened, change: str) -> None:
    run = opened.chain.the_run
    assert await opened.recalled() is not None
    if change == "asked":
        step = a_step(run)
        await opened.add(step, an_approval(run, step.key))
    elif change == "erased":
        await opened.store.commit(opened.chain.adds(1, erase=("gone_c",)))
    else:
        values = {"state": RunState.PARKED} if change == "parked" else {"epoch": 2, "jkt": "jkt-2"}
        await opened.store.commit(opened.chain.adds(1, change=values))
    assert await opened.recalled() is None


async def test_a_run_with_a_principal_is_looked_up(store: AnyStore) -> None:
    chain = Chain.of_run(principal_c="p_c", principal_method="m")
    run = Opened(store, chain)
    await run.add(ChainKey("acme", run.id, Wrapped("kek", b"n" * 12, b"c" * 48)))
    await run.recalled()
    assert store.recall(run.query()) is None


async def test_no_commit_rests_on_what_others_changed(opened: Opened, database: Database, clock: SetClock) -> None:
    other = database.open(clock)
    old = opened.store.recall(opened.query())
    assert old is not None
    tenant = Chain.of_tenant()
    await other.commit(replace(tenant.adds(1), raise_guard=True))
    with pytest.raises(GuardMoved):
        await opened.store.commit(replace(opened.chain.adds(1, lease_until=LEASE), guard=old.tenant.guard))
    await other.close()


async def test_a_run_that_others_go_on_with_is_forgotten_at_last(
    opened: Opened, database: Database, clock: SetClock
) -> None:
    other, here = database.open(clock), opened.chain.copy()
    await other.commit(opened.chain.adds(1, lease_until=LEASE))
    for _ in range(3):
        assert opened.store.recall(opened.query()) is not None
        with pytest.raises(VersionMoved):
            await opened.store.commit(here.copy().adds(1, lease_until=LEASE))
        await opened.store.load(opened.query())
    assert opened.store.recall(opened.query()) is None
    await other.close()
