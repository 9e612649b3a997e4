"""Several brokers on one PostgreSQL: what one of them did, the others see, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from conformance.store.adapters import PostgresDatabase
from conformance.store.making import NOW, Chain, Gate, a_proof, a_step, an_answer
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, StoreRefusal, VersionMoved
from stepgrant_broker.domain.standing import FOREVER
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store.postgres import PostgresStore

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Failpoints
    from stepgrant_services import PostgresServer

WAITING: Final = """
    SELECT count(*) FROM pg_stat_activity
     WHERE wait_event_type = 'Lock' AND application_name LIKE 'stepgrant%' AND datname = current_database()
"""

NOTED: Final = "SELECT id, over, rests_seq, rests_until FROM runs JOIN run_epochs ON run = id"


class Replicas:
    """Brokers' stores on one database."""

    def __init__(self, server: PostgresServer) -> None:
        self.database = PostgresDatabase.on(server)
        self.opened: list[PostgresStore] = []

    def open(self, failpoints: Failpoints | None = None) -> PostgresStore:
        self.opened.append(PostgresStore(self.database.location, failpoints=failpoints, readers=1))
        return self.opened[-1]

    async def close(self) -> None:
        for store in self.opened:
            await store.close()

    async def waiting(self, number: int) -> None:
        """Until so many of our sessions wait for a lock."""
        async with await psycopg.AsyncConnection.connect(self.database.location, autocommit=True) as db:
            while (await (await db.execute(WAITING)).fetchone()) != (number,):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    def noted(self) -> list[tuple[Any, ...]]:
        """Of each run: whether its epoch is over, and how it rests."""
        with psycopg.connect(self.database.location) as db:
            return db.execute(NOTED).fetchall()

    def deadlocks(self) -> int:
        with psycopg.connect(self.database.location) as db:
            found = db.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
        assert found is not None
        return int(found[0])


@pytest.fixture
async def replicas(postgres_server: PostgresServer) -> AsyncIterator[Replicas]:
    made = Replicas(postgres_server)
    yield made
    await made.close()


async def both(*calls: Any) -> list[type]:  # noqa: ANN401 - awaitables
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return sorted((type(outcome) for outcome in outcomes), key=lambda kind: (kind is not type(None), kind.__name__))


async def test_one_proof_is_used_once(replicas: Replicas) -> None:
    one, other = replicas.open(), replicas.open()
    for _ in range(20):
        proof, mine, theirs = a_proof(), Chain.of_run(), Chain.of_run("globex")
        outcomes = await both(one.commit(mine.adds(1, proof=proof)), other.commit(theirs.adds(1, proof=proof)))
        assert outcomes == [type(None), ProofReplayed]
    found = replicas.database.snapshot()
    assert (len(found["runs"]), len(found["entries"]), len(found["proofs"])) == (20, 20, 20)


async def test_one_run_is_moved_once(replicas: Replicas) -> None:
    one, other = replicas.open(), replicas.open()
    chain = Chain.of_run()
    await one.commit(chain.adds(1))
    for number in range(20):
        sets = [chain.copy().adds(1, rows=(a_step(chain.the_run),), proof=a_proof()) for _ in range(2)]
        assert await both(one.commit(sets[0]), other.commit(sets[1])) == [type(None), VersionMoved]
        loaded = await (one, other)[number % 2].load(Query("acme", run=chain.run))
        assert loaded.view.run is not None
        chain.row = loaded.view.run
    found = replicas.database.snapshot()
    assert (len(found["entries"]), len(found["steps"]), len(found["proofs"])) == (21, 20, 20)


async def test_one_answer_is_stored_once(replicas: Replicas) -> None:
    one, other = replicas.open(), replicas.open()
    now = await one.now()
    mine, theirs = Chain.of_run(), Chain.of_run()
    answer = an_answer(mine, expires_at=now + 60_000)
    again = an_answer(theirs, scope=answer.scope, expires_at=now + 60_000)
    assert await both(one.commit(mine.adds(1, answer=answer)), other.commit(theirs.adds(1, answer=again))) == [
        type(None),
        AnswerTaken,
    ]


async def test_a_grant_in_flight_holds_the_kill_switch_up(replicas: Replicas) -> None:
    """It is applied but not committed: the switch waits, and so the grant is there before it."""
    gate = Gate("store.before_commit")
    slow, other = replicas.open(gate), replicas.open()
    chain, own = Chain.of_run(), Chain.of_tenant()
    granting = asyncio.create_task(slow.commit(chain.adds(1, guard=0)))
    await asyncio.to_thread(gate.reached.wait, 60)
    raising = asyncio.create_task(other.commit(own.adds(1, raise_guard=True)))
    await asyncio.sleep(0.3)
    assert not raising.done()
    gate.open()
    await granting
    await raising
    with pytest.raises(GuardMoved):
        await slow.commit(chain.copy().adds(1, guard=0))


async def test_a_kill_switch_in_flight_is_seen_by_every_later_grant(replicas: Replicas) -> None:
    """It is thrown but not committed: the grant waits, and is refused. Without the lock it would not see it."""
    gate = Gate("store.before_commit")
    slow, other = replicas.open(gate), replicas.open()
    chain, own = Chain.of_run(), Chain.of_tenant()
    raising = asyncio.create_task(slow.commit(own.adds(1, raise_guard=True)))
    await asyncio.to_thread(gate.reached.wait, 60)
    granting = asyncio.create_task(other.commit(chain.copy().adds(1, guard=0, proof=a_proof())))
    elsewhere = Chain.of_run("globex")
    await other.load(Query("acme"))
    await asyncio.sleep(0.3)
    assert not granting.done()
    gate.open()
    await raising
    with pytest.raises(GuardMoved):
        await granting
    assert len(replicas.database.snapshot()["runs"]) == 0
    assert len(replicas.database.snapshot()["proofs"]) == 0
    await other.commit(chain.adds(1, guard=1))
    await other.commit(elsewhere.adds(1, guard=0))


async def test_batches_that_share_runs_never_block_each_other(replicas: Replicas) -> None:
    """Each has both runs, in opposite order, and both wait for the same one: whoever gets it gets the other too."""
    chains = [Chain.of_run(), Chain.of_run()]
    first = replicas.open()
    for chain in chains:
        await first.commit(chain.adds(1))
    chains.sort(key=lambda chain: str(chain.run))
    gates = [Gate(), Gate()]
    calls: list[asyncio.Task[None]] = []
    for gate, order in zip(gates, (chains, chains[::-1]), strict=True):
        store = replicas.open(gate)
        calls.append(asyncio.create_task(store.commit(Chain.of_run().adds(1))))
        await asyncio.to_thread(gate.reached.wait, 60)
        calls += [asyncio.create_task(store.commit(chain.copy().adds(1))) for chain in order]
    await asyncio.sleep(0)
    with psycopg.connect(replicas.database.location) as other:
        other.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", [chains[0].run])
        for gate in gates:
            gate.open()
        await replicas.waiting(2)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 4
    assert all(outcome is None or isinstance(outcome, VersionMoved) for outcome in outcomes)
    for chain in chains:
        assert len(await first.entries("acme", chain.run)) == 2
    # PostgreSQL counts them when its sessions get round to it.
    for store in replicas.opened:
        await store.close()
    assert replicas.deadlocks() == 0


async def test_both_commit_in_groups_and_every_chain_is_whole(replicas: Replicas) -> None:
    one, other = replicas.open(), replicas.open()
    shared, own = Chain.of_run(), [Chain.of_run() for _ in range(12)]
    await one.commit(shared.adds(1))

    async def alone(store: PostgresStore, chain: Chain) -> None:
        for _ in range(8):
            await store.commit(chain.adds(1, guard=0, proof=a_proof(), rows=(a_step(chain.the_run),)))

    async def together(store: PostgresStore) -> int:
        refused, done = 0, 0
        while done < 8:
            run = (await store.load(Query("acme", run=shared.run))).view.run
            assert run is not None
            try:
                await store.commit(Chain("acme", run).adds(1, proof=a_proof()))
                done += 1
            except StoreRefusal:
                refused += 1
        return refused

    calls = [alone((one, other)[number % 2], chain) for number, chain in enumerate(own)]
    await asyncio.gather(*calls, together(one), together(other))
    assert one.commits + other.commits < 12 * 8 + 16 + 1
    for chain in [*own, shared]:
        run = (await other.load(Query("acme", run=chain.run))).view.run
        entries = await one.entries("acme", chain.run)
        assert run is not None
        assert [entry.seq for entry in entries] == list(range(run.seq))
    assert len(await one.entries("acme", shared.run)) == 17


@pytest.mark.parametrize("held", ["runs WHERE id", "run_epochs WHERE run"])
async def test_a_note_beside_the_calls_waits_for_none_and_leaves_what_others_hold_for_later(
    replicas: Replicas, held: str
) -> None:
    store, chains = replicas.open(), [Chain.of_run(state=RunState.PARKED, park_reason="suspended") for _ in range(3)]
    for chain in chains:
        await store.commit(chain.adds(1))
    with psycopg.connect(replicas.database.location) as other:
        other.execute(f"SELECT 1 FROM {held} = %s FOR UPDATE".encode(), [chains[1].run])  # noqa: S608 - words of ours
        assert await store.let_rest() == 5  # an epoch and a run each, but for that one
        assert await store.let_rest() == 0
    assert await store.let_rest() == 1
    notes = {row[0]: row[1:] for row in replicas.noted()}
    assert notes == {chain.run: (1, chain.the_run.seq, FOREVER) for chain in chains}


async def test_all_go_by_the_databases_clock(replicas: Replicas) -> None:
    one, other = replicas.open(), replicas.open()
    with psycopg.connect(replicas.database.location) as db:
        found = db.execute("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)").fetchone()
    assert found is not None
    times = [int(found[0]), await one.now(), (await other.load(Query("acme"))).now, await one.now()]
    assert times == sorted(times)
    assert times[-1] - times[0] < 10_000
    chain = Chain.of_run()
    over, living = an_answer(chain, expires_at=times[-1]), an_answer(chain, expires_at=times[-1] + 60_000)
    await one.commit(chain.adds(1, answer=over))
    await one.commit(chain.adds(1, answer=living))
    assert (await other.load(Query("acme", answer=over.scope))).answer is None
    assert (await other.load(Query("acme", answer=living.scope))).answer == living
    await other.commit(chain.adds(1, answer=over))
    with pytest.raises(AnswerTaken):
        await other.commit(chain.adds(1, answer=living))
    assert times[-1] < NOW, "the suite's own clock lies ahead, so that no test passes by it here"


async def test_a_nul_is_refused_by_name_and_nothing_is_cut_short(replicas: Replicas) -> None:
    store, chain = replicas.open(), Chain.of_run()
    await store.commit(chain.adds(1))
    before = replicas.database.snapshot()
    with pytest.raises(InvalidRequest, match="NUL"):
        await store.load(Query("acme", run=f"{chain.run}\0x"))
    with pytest.raises(InvalidRequest, match="NUL"):
        await store.commit(chain.copy().adds(1, rows=(a_step(chain.the_run, key="pay\0x"),)))
    calls = [
        store.commit(chain.copy().adds(1, rows=(a_step(chain.the_run, tool="\0"),))),
        store.commit(Chain.of_tenant("t\0").adds(1)),
    ]
    assert await both(*calls) == [InvalidRequest, InvalidRequest]
    assert replicas.database.snapshot() == before
    await store.commit(chain.adds(1))
