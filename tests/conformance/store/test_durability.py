"""What was acknowledged is there, whatever happens; what was not is there whole or not at all."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import Chain, Gate, Raising, SetClock, Several, a_payload, a_proof, a_step
from faults.forks import environment, forking, lived, spawned
from stepgrant_broker.domain.errors import FateUnknown, StoreUnavailable
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.refusals import ProofReplayed, VersionMoved
from stepgrant_broker.domain.writes import Query

CHILD = Path(__file__).with_name("child.py")


PATIENCE_S = 120.0


@pytest.fixture(autouse=True, scope="session")
def _forking() -> Iterator[None]:
    with forking():
        yield


async def test_reopened(database: Database, clock: SetClock) -> None:
    chain = Chain.of_run()
    store = database.open(clock)
    await store.commit(chain.adds(2, rows=(a_step(chain.the_run),)))
    await store.close()
    store = database.open(clock)
    assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
    await store.commit(chain.adds(1))
    assert [entry.seq for entry in await store.entries("acme", chain.run)] == [0, 1, 2]
    await store.close()


async def test_a_used_proof_is_remembered_by_the_next_process(database: Database, clock: SetClock) -> None:
    chain, proof = Chain.of_run(), a_proof()
    store = database.open(clock)
    await store.commit(chain.adds(1, proof=proof))
    await store.close()
    store = database.open(clock)
    with pytest.raises(ProofReplayed):
        await store.commit(chain.bare(proof=proof))
    await store.close()


@pytest.mark.parametrize(
    ("point", "there"),
    [
        ("store.before_apply", False),
        ("store.before_commit", False),
        ("store.after_commit", True),
        ("acknowledged", True),
    ],
)
async def test_killed(database: Database, clock: SetClock, point: str, there: bool) -> None:  # noqa: FBT001
    """SIGKILL in the middle of a commit, and right after its acknowledgement."""
    words = (database.adapter, database.location, "die", point)
    code, output, errors = lived(CHILD, *words, environment=environment(), patience_s=PATIENCE_S)
    assert code == -signal.SIGKILL, errors
    run = output.strip()
    store = database.open(clock)
    view = (await store.load(Query("acme", run=run, unfinished=True))).view
    assert view.run is not None
    assert view.run.seq == (3 if there else 1)
    assert len(view.steps) == (5 if there else 0)
    assert len(await store.entries("acme", run)) == view.run.seq
    snapshot = database.snapshot()
    assert (len(snapshot["proofs"]), len(snapshot["payloads"])) == ((2, 1) if there else (1, 0))
    await store.commit(Chain("acme", view.run).adds(1))
    await store.close()


async def test_two_processes_write_one_run(store: AnyStore, database: Database) -> None:
    """Neither loses an entry of the other, and the chain has no gap."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    words = (database.adapter, database.location, "rival", str(chain.run), "60")
    process = spawned(CHILD, *words, environment=environment())
    moved = done = 0
    while done < 60 or process.poll() is None:
        found = (await store.load(Query("acme", run=chain.run))).view.run
        assert found is not None
        try:
            await store.commit(Chain("acme", found).adds(1, proof=a_proof()))
            done += 1
        except VersionMoved:
            moved += 1
    assert process.wait(PATIENCE_S) == 0
    last = (await store.load(Query("acme", run=chain.run))).view.run
    entries = await store.entries("acme", chain.run, limit=100_000)
    assert last is not None
    assert last.seq == len(entries) == 1 + 60 + done
    assert [entry.seq for entry in entries] == list(range(len(entries)))


async def test_commits_share_a_transaction(database: Database, clock: SetClock) -> None:
    """Sixteen at once need fewer durable commits than calls; one alone needs one."""
    store = database.open(clock)
    chains = [Chain.of_run() for _ in range(16)]
    for chain in chains[:3]:
        await store.commit(chain.adds(1))
    assert store.commits == 3
    for chain in chains[3:]:
        await store.commit(chain.adds(1))
    before = store.commits

    async def work(chain: Chain) -> None:
        for _ in range(10):
            await store.commit(chain.adds(1, proof=a_proof()))

    await asyncio.gather(*(work(chain) for chain in chains))
    assert store.commits - before <= 80
    await store.close()


async def test_waiting_sets_become_one_transaction(database: Database, clock: SetClock) -> None:
    gate = Gate()
    store = database.open(clock, gate)
    first = asyncio.create_task(store.commit(Chain.of_run().adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    calls = [asyncio.create_task(store.commit(Chain.of_run().adds(1))) for _ in range(40)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *calls)
    assert store.commits == 2
    assert len((await store.runs("acme", Page())).rows) == 41
    await store.close()


async def test_a_refused_set_costs_no_commit(store: AnyStore) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    before = store.commits
    for _ in range(3):
        with pytest.raises(VersionMoved):
            await store.commit(chain.copy().adds(1, change={"agent": "another"}))
    await store.commit(chain.bare())
    assert store.commits == before


async def test_a_cancelled_caller_takes_nothing_back(database: Database, clock: SetClock) -> None:
    gate = Gate()
    store = database.open(clock, gate)
    cancelled, other = Chain.of_run(), Chain.of_run()
    calls = [asyncio.create_task(store.commit(chain.adds(1))) for chain in (cancelled, other)]
    await asyncio.to_thread(gate.reached.wait, 60)
    calls[0].cancel()
    await asyncio.gather(calls[0], return_exceptions=True)
    assert calls[0].cancelled()
    gate.open()
    await calls[1]
    for chain in (cancelled, other):
        assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
    await store.close()


async def test_an_error_before_the_commit_leaves_nothing(database: Database, clock: SetClock) -> None:
    store = database.open(clock, Raising("store.before_commit", OSError("disk")))
    chain, before = Chain.of_run(), database.snapshot()
    with pytest.raises(StoreUnavailable) as caught:
        await store.commit(chain.copy().adds(1, proof=a_proof()))
    assert type(caught.value) is StoreUnavailable
    assert caught.value.retry_after_ms
    assert database.snapshot() == before
    await store.commit(chain.adds(1))
    await store.close()


async def test_a_lost_reply_leaves_the_fate_unknown(database: Database, clock: SetClock) -> None:
    """The set is there, and its caller is not told that it is not."""
    store = database.open(clock, Raising("store.after_commit", OSError("connection")))
    chain = Chain.of_run()
    with pytest.raises(FateUnknown):
        await store.commit(chain.adds(1))
    assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
    await store.commit(chain.adds(1))
    await store.close()


async def test_of_a_lost_batch_only_applied_sets_are_in_doubt(database: Database, clock: SetClock) -> None:
    gate = Gate()
    lost = Raising("store.after_commit", OSError("connection"), after=1)
    store = database.open(clock, Several(gate, lost))
    first = asyncio.create_task(store.commit(Chain.of_run().adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    applied, stale = Chain.of_run(), Chain.of_run()
    stale.adds(1)
    calls = [asyncio.create_task(store.commit(chain.adds(1))) for chain in (applied, stale)]
    await asyncio.sleep(0)
    gate.open()
    outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), FateUnknown, StoreUnavailable]
    assert (await store.load(Query("acme", run=applied.run))).view.run == applied.row
    await store.close()


async def test_overload_is_refused_at_once(database: Database, clock: SetClock) -> None:
    gate = Gate()
    store = database.open(clock, gate, capacity=4)
    chains = [Chain.of_run() for _ in range(6)]
    first = asyncio.create_task(store.commit(chains[0].adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    waiting = [asyncio.create_task(store.commit(chain.adds(1))) for chain in chains[1:5]]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="more work") as caught:
        await store.commit(chains[5].copy().adds(1))
    assert caught.value.retry_after_ms
    gate.open()
    await asyncio.gather(first, *waiting)
    assert (await store.load(Query("acme", run=chains[5].run))).view.run is None
    await store.commit(chains[5].adds(1))
    await store.close()


async def test_closing_finishes_what_waits(database: Database, clock: SetClock) -> None:
    gate = Gate()
    store = database.open(clock, gate)
    chains = [Chain.of_run() for _ in range(5)]
    calls = [asyncio.create_task(store.commit(chain.adds(1))) for chain in chains]
    await asyncio.to_thread(gate.reached.wait, 60)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.commit(Chain.of_run().adds(1))
    gate.open()
    await asyncio.gather(closing, *calls)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.load(Query("acme"))
    await store.close()
    assert len(database.snapshot()["runs"]) == len(chains)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stepgrant-")]


async def test_a_view_is_consistent_while_others_write(store: AnyStore) -> None:
    """The run's row and its steps are of one moment: a set's rows are seen all or not at all."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    stop = asyncio.Event()

    async def write() -> None:
        for _ in range(60):
            await store.commit(chain.adds(1, rows=(a_step(chain.the_run),), payloads=(a_payload(),)))
        stop.set()

    async def read() -> None:
        while not stop.is_set():
            view = (await store.load(Query("acme", run=chain.run, unfinished=True))).view
            assert view.run is not None
            assert view.run.seq == 1 + len(view.steps)

    await asyncio.gather(write(), read(), read())
