"""What refuses a write set, in which order, and that a refused one leaves nothing behind."""

# ruff: noqa: ANN401 - members of a write set of any type

from __future__ import annotations

from typing import Any

import pytest

from changing import replace
from conformance.store.adapters import AnyStore, Database
from conformance.store.making import (
    NOW,
    Chain,
    SetClock,
    a_grant,
    a_payload,
    a_proof,
    a_run,
    a_step,
    an_answer,
    an_approval,
    an_epoch,
)
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, VersionMoved
from stepgrant_broker.domain.writes import (
    ChainKey,
    Operator,
    PolicyText,
    Quarantine,
    Query,
    Tenant,
    Workload,
    WriteSet,
)
from stepgrant_broker.store.faults import WriteSetMalformed

WRAPPED = Wrapped("k", b"n", b"c")


async def refused(store: AnyStore, database: Database, writes: WriteSet, error: type[Exception]) -> None:
    """The set is refused with exactly this error, and no table has changed."""
    before = database.snapshot()
    with pytest.raises(error) as caught:
        await store.commit(writes)
    assert type(caught.value) is error
    assert database.snapshot() == before


def full(chain: Chain, **more: Any) -> WriteSet:
    """A set that would leave something in every table that a run's set can reach."""
    run = chain.the_run
    step = a_step(run)
    rows = (
        step, a_grant(run, step.key), an_approval(run, step.key), an_epoch(run, 2),
        ChainKey("acme", run.id, WRAPPED), SecretRecord("acme", "s", ("h",), "H", WRAPPED),
        Workload("wkl_r", "acme", "w", "k", (), (), {}, "jkt", NOW), Quarantine("acme", "agent", "a", NOW),
        Operator("opr_r", "acme", "n_c", (), (), "hash_r", NOW), PolicyText("acme", "1:x", 1, "x", NOW, b"{}"),
    )  # fmt: skip
    values: dict[str, Any] = {"proof": a_proof(), "answer": an_answer(chain), "payloads": (a_payload(),)}
    return chain.adds(2, rows=rows, raise_guard=True, lease_until=NOW + 1, **{**values, **more})


async def test_run_version_moved(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    other = chain.copy()
    await store.commit(chain.adds(1))
    await refused(store, database, full(other), VersionMoved)


async def test_run_version_moved_without_entries(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    other = chain.copy()
    await store.commit(chain.adds(1))
    await refused(store, database, other.bare(proof=a_proof()), VersionMoved)
    await refused(store, database, other.bare(lease_until=NOW + 9), VersionMoved)
    await store.commit(chain.bare(lease_until=NOW + 9))
    assert (await store.load(Query("acme", run=chain.run))).lease_until == NOW + 9


async def test_a_set_without_entries_writes_its_proof_and_keeps_the_lease(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1, lease_until=NOW + 5))
    proof = a_proof()
    await store.commit(chain.bare(proof=proof))
    await store.commit(chain.adds(1))
    assert (await store.load(Query("acme", run=chain.run))).lease_until == NOW + 5
    await refused(store, database, chain.bare(proof=proof), ProofReplayed)


async def test_run_opened_twice(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    other = chain.copy()
    await store.commit(chain.adds(1))
    await refused(store, database, full(other), VersionMoved)


async def test_run_key_taken(store: AnyStore, database: Database) -> None:
    """Two agents open one run at once: the ids differ, the key does not."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    same_key = Chain("acme", a_run("acme", key=chain.the_run.key))
    await refused(store, database, full(same_key), VersionMoved)
    other_agent = Chain("acme", a_run("acme", key=chain.the_run.key, agent="another"))
    await store.commit(other_agent.adds(1))
    other_tenant = Chain("globex", a_run("globex", key=chain.the_run.key))
    await store.commit(other_tenant.adds(1))


async def test_run_that_does_not_exist(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    chain.adds(1)
    await refused(store, database, full(chain), VersionMoved)
    await refused(store, database, chain.bare(proof=a_proof()), VersionMoved)


async def test_the_end_of_a_run_is_final(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1, change={"ended_at": NOW}))
    await store.commit(chain.adds(1))
    await refused(store, database, chain.copy().adds(1, change={"ended_at": None}), VersionMoved)


async def test_what_is_fixed_about_a_run_does_not_move(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    for change in ({"key": "another"}, {"agent": "another"}, {"opened_at": NOW + 1}):
        await refused(store, database, chain.copy().adds(1, change=change), VersionMoved)


async def test_a_grant_does_not_move_to_another_step_or_run(store: AnyStore, database: Database) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    grant = a_grant(chain.the_run, "s1")
    await store.commit(chain.adds(1, rows=(grant,)))
    await store.commit(other.adds(1))
    await refused(store, database, chain.copy().adds(1, rows=(replace(grant, step="s2"),)), WriteSetMalformed)
    await refused(store, database, other.adds(1, rows=(replace(grant, run=str(other.run)),)), WriteSetMalformed)


async def test_tenant_version_moved(store: AnyStore, database: Database) -> None:
    chain = Chain.of_tenant()
    other = chain.copy()
    await store.commit(chain.adds(1))
    await refused(store, database, other.copy().adds(2, proof=a_proof(), raise_guard=True), VersionMoved)
    await refused(store, database, other.bare(proof=a_proof()), VersionMoved)
    await store.commit(chain.bare(proof=a_proof()))
    other = chain.copy()
    await store.commit(chain.adds(1))
    await refused(store, database, other.adds(1, rows=(Quarantine("acme", "agent", "a", NOW),)), VersionMoved)


async def test_tenant_that_does_not_exist_is_at_its_beginning(store: AnyStore, database: Database) -> None:
    chain = Chain.of_tenant()
    await store.commit(chain.bare(proof=a_proof(), answer=an_answer(chain)))
    chain.adds(1)
    await refused(store, database, chain.copy().adds(1), VersionMoved)
    await refused(store, database, chain.bare(proof=a_proof()), VersionMoved)
    assert (await store.load(Query("acme"))).tenant == Tenant("acme", 0, GENESIS, 0)


async def test_guard_moved(store: AnyStore, database: Database) -> None:
    chain, own = Chain.of_run(), Chain.of_tenant()
    await store.commit(chain.adds(1, guard=0))
    await refused(store, database, full(chain.copy(), guard=1), GuardMoved)
    await store.commit(own.adds(1, raise_guard=True))
    await refused(store, database, full(chain.copy(), guard=0), GuardMoved)
    await store.commit(chain.adds(1, guard=1))
    await store.commit(chain.adds(1))


async def test_guard_can_be_raised_before_the_tenant_wrote_anything(store: AnyStore) -> None:
    chain, own = Chain.of_run(), Chain.of_tenant()
    await store.commit(chain.adds(1, raise_guard=True))
    assert (await store.load(Query("acme"))).tenant == Tenant("acme", 0, GENESIS, 0, guard=1)
    await store.commit(own.adds(1))
    tenant = (await store.load(Query("acme"))).tenant
    assert (tenant.seq, tenant.guard) == (1, 1)


async def test_a_tenants_row_never_moves_the_guard(store: AnyStore) -> None:
    chain = Chain.of_tenant()
    await store.commit(chain.adds(1, change={"guard": 7}))
    assert (await store.load(Query("acme"))).tenant.guard == 0
    await store.commit(chain.adds(1, raise_guard=True))
    await store.commit(chain.adds(1, raise_guard=True))
    await store.commit(chain.adds(1, change={"guard": 0}))
    assert (await store.load(Query("acme"))).tenant.guard == 2


async def test_guards_of_tenants_are_apart(store: AnyStore) -> None:
    await store.commit(Chain.of_tenant("globex").adds(1, raise_guard=True))
    await store.commit(Chain.of_run("acme").adds(1, guard=0))


async def test_proof_replayed(store: AnyStore, database: Database, clock: SetClock) -> None:
    chain, proof = Chain.of_run(), a_proof()
    await store.commit(chain.adds(1, proof=proof))
    await refused(store, database, full(chain.copy(), proof=proof), ProofReplayed)
    await refused(store, database, full(Chain.of_run("globex"), proof=proof), WriteSetMalformed)
    await refused(store, database, Chain.of_run("globex").adds(1, proof=proof), ProofReplayed)
    clock.time = proof.expires_at + 1
    await refused(store, database, full(chain.copy(), proof=proof), ProofReplayed)


async def test_answer_taken(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    answer = an_answer(chain)
    await store.commit(chain.adds(1, answer=answer))
    await refused(store, database, full(chain.copy(), answer=replace(answer, status=500)), AnswerTaken)


async def test_answer_scopes_of_tenants_are_apart(store: AnyStore) -> None:
    chain, other = Chain.of_run(), Chain.of_run("globex")
    answer = an_answer(chain)
    await store.commit(chain.adds(1, answer=answer))
    await store.commit(other.adds(1, answer=an_answer(other, scope=answer.scope)))


async def test_expired_answer_is_replaced(store: AnyStore, database: Database, clock: SetClock) -> None:
    chain = Chain.of_run()
    answer = an_answer(chain, expires_at=NOW + 10)
    await store.commit(chain.adds(1, answer=answer))
    clock.time = NOW + 9
    await refused(store, database, chain.copy().adds(1, answer=answer), AnswerTaken)
    clock.time = NOW + 10
    assert (await store.load(Query("acme", answer=answer.scope))).answer is None
    newer = replace(answer, status=201, body_c="other", expires_at=NOW + 99)
    await store.commit(chain.adds(1, answer=newer))
    assert (await store.load(Query("acme", answer=answer.scope))).answer == newer


async def test_refusals_come_in_a_fixed_order(store: AnyStore, database: Database) -> None:
    """A replay is told from a moved run, whoever else was faster."""
    chain, own = Chain.of_run(), Chain.of_tenant()
    proof, answer = a_proof(), an_answer(chain)
    stale = chain.copy()
    await store.commit(chain.adds(1, proof=proof, answer=answer))
    await store.commit(own.adds(1, raise_guard=True))
    await refused(store, database, full(stale.copy(), proof=proof, guard=0, answer=answer), ProofReplayed)
    await refused(store, database, full(stale.copy(), guard=0, answer=answer), GuardMoved)
    await refused(store, database, full(stale.copy(), guard=1, answer=answer), VersionMoved)
    await refused(store, database, full(chain.copy(), guard=1, answer=answer), AnswerTaken)
