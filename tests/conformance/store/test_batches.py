"""Sets that share a transaction: one that is refused falls alone."""

from __future__ import annotations

import asyncio

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, Gate, SetClock, a_proof, a_step, an_answer
from stepgrant_broker.domain.refusals import GuardMoved, ProofReplayed, StoreRefusal, VersionMoved
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.store.faults import WriteSetMalformed


async def test_refused_sets_do_not_abort_their_batch(database: Database, clock: SetClock) -> None:
    """One batch with a set refused for each reason, one that breaks the schema, and good ones around them."""
    gate = Gate()
    store = database.open(clock, gate)
    opening = asyncio.create_task(store.commit(Chain.of_run().adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    good = [Chain.of_run() for _ in range(3)]
    proof = a_proof()
    stale = Chain.of_run()
    stale.adds(1)
    same_id = [Workload("wkl_x", tenant, "w", "k", (), (), {}, "jkt", NOW) for tenant in ("acme", "globex")]
    sets = [
        good[0].adds(1, proof=proof, answer=an_answer(good[0])),
        good[0].adds(1, proof=proof),
        good[1].adds(1, guard=3),
        Chain.of_tenant("acme").adds(1, rows=same_id[:1]),
        stale.adds(1, proof=a_proof()),
        Chain.of_tenant("globex").adds(1, rows=same_id[1:]),
        good[2].adds(1),
    ]
    calls = [asyncio.create_task(store.commit(writes)) for writes in sets]
    await asyncio.sleep(0)
    gate.open()
    await opening
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    expected = [None, ProofReplayed, GuardMoved, None, VersionMoved, WriteSetMalformed, None]
    assert [None if outcome is None else type(outcome) for outcome in outcomes] == expected
    assert len(database.snapshot()["proofs"]) == 1  # that of a refused set was written before it was refused
    await store.close()


async def test_a_replayed_proof_in_one_batch(database: Database, clock: SetClock) -> None:
    """Ten calls with one proof at once: one is taken, and nine fall alone."""
    gate = Gate()
    store = database.open(clock, gate)
    chains, proof = [Chain.of_run() for _ in range(10)], a_proof()
    calls = [asyncio.create_task(store.commit(chain.adds(1, proof=proof))) for chain in chains]
    await asyncio.to_thread(gate.reached.wait, 60)
    gate.open()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["ProofReplayed"] * 9
    assert len(database.snapshot()["runs"]) == 1
    await store.close()


async def test_one_winner_of_many(store: AnyStore, database: Database) -> None:
    """Twenty sets decided on the same version: one is applied."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    rivals = [chain.copy().adds(1, proof=a_proof(), rows=(a_step(chain.the_run),)) for _ in range(20)]
    outcomes = await asyncio.gather(*(store.commit(writes) for writes in rivals), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, StoreRefusal) for outcome in outcomes)
    snapshot = database.snapshot()
    assert (len(snapshot["steps"]), len(snapshot["proofs"]), len(snapshot["entries"])) == (1, 1, 2)
