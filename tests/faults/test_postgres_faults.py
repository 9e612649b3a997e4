"""PostgreSQL fails under the store: named refusals, nothing half applied, nothing twice, and it goes on after.

The faults are real: servers of our own that are killed, stopped, locked or read only, and cut connections. What is full
is in `test_postgres_full.py`.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conformance.store.adapters import PostgresDatabase
from conformance.store.making import Chain, a_proof, a_run, a_step
from cuts import ALL, WRITER
from faults.recovering import BACK_S, there, until_served
from faults.relay import Relay
from faults.unsaid import shows_no_secret
from stepgrant_broker.domain.errors import FateUnknown, StoreUnavailable
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store.asking import Ask
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.postgres_faults import Lost
from stepgrant_broker.store.postgres_link import Link, Manner
from stepgrant_broker.store.statements import Text

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer


class Calling:
    """Failpoints that call something at one point, once."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.then: Callable[[], object] | None = None

    def hit(self, point: str) -> None:
        if point == self._point and self.then is not None:
            then, self.then = self.then, None
            then()


@pytest.fixture(scope="module")
def server(new_postgres: Callable[..., PostgresServer]) -> Iterator[PostgresServer]:
    with new_postgres() as made:
        yield made


@pytest.fixture
def database(server: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase.on(server)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., PostgresStore]]:
    stores: list[PostgresStore] = []

    def open_(url: str, **more: Any) -> PostgresStore:  # noqa: ANN401 - the store's options
        stores.append(PostgresStore(url, readers=1, **more))
        return stores[-1]

    yield open_
    for store in stores:
        await store.close()


async def test_killed_under_load_and_recovered(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """What was acknowledged is there, what was refused is not, and of what is in doubt each set is whole or absent."""
    store = opened(database.location)
    chains = [Chain.of_run() for _ in range(8)]
    sure: dict[str | None, int] = {}
    met: list[StoreUnavailable] = []

    async def work(chain: Chain) -> None:
        await store.commit(chain.adds(1))
        while True:
            sure[chain.run] = chain.row.seq
            before = chain.row
            try:
                await store.commit(chain.adds(2, rows=(a_step(chain.the_run),), proof=a_proof()))
            except StoreUnavailable as fault:
                chain.row = before
                met.append(fault)
                return

    tasks = [asyncio.create_task(work(chain)) for chain in chains]
    while store.commits < 20:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill)
    await asyncio.gather(*tasks)
    assert len(met) == 8
    for fault in met:
        assert fault.retry_after_ms
        shows_no_secret(fault, server)
    with pytest.raises(StoreUnavailable):
        await store.load(Query("acme"))
    await asyncio.to_thread(server.start)
    assert await until_served(lambda: store.load(Query("acme"))) < BACK_S
    assert await until_served(lambda: store.commit(Chain.of_run().adds(1))) < BACK_S
    in_doubt = [isinstance(fault, FateUnknown) for fault in met]
    for chain in chains:
        found = await there(store, chain)
        assert found in {sure[chain.run], sure[chain.run] + 2}
        if not any(in_doubt):
            assert found == sure[chain.run]
        steps = (await store.load(Query("acme", run=chain.run, unfinished=True))).view.steps
        assert found == 1 + 2 * len(steps)


async def test_stopped_and_started(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    store, chain = opened(database.location), Chain.of_run()
    await store.commit(chain.adds(1))
    await asyncio.to_thread(server.stop)
    for call in (lambda: store.commit(chain.copy().adds(1)), lambda: store.load(Query("acme")), store.now):
        with pytest.raises(StoreUnavailable) as caught:
            await call()
        assert type(caught.value) is StoreUnavailable
        assert caught.value.retry_after_ms
        shows_no_secret(caught.value, server)
    await asyncio.to_thread(server.start)
    assert await until_served(lambda: store.commit(chain.copy().bare(proof=a_proof()))) < BACK_S
    assert await there(store, chain) == 1
    await store.commit(chain.adds(1))


async def test_idle_connections_that_were_cut_are_not_noticed(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """Nothing was under way, so nothing is in doubt: it is sent once more."""
    store, chain = opened(database.location), Chain.of_run()
    await store.commit(chain.adds(1))
    for _ in range(3):
        server.sql(ALL)
        told = await asyncio.gather(store.commit(chain.adds(1, proof=a_proof())), return_exceptions=True)
        assert list(told) == [None]
        server.sql(ALL)
        assert await there(store, chain) == chain.row.seq


async def test_cut_before_commit(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """COMMIT goes into a connection that is gone: nobody can know, so it is in doubt, and it is not there."""
    calling = Calling("store.before_commit")
    store, chain = opened(database.location, failpoints=calling), Chain.of_run()
    await store.commit(chain.adds(1))
    calling.then = lambda: server.sql(WRITER)
    with pytest.raises(FateUnknown, match="Idempotency-Key"):
        await store.commit(chain.copy().adds(1, proof=a_proof()))
    assert await there(store, chain) == 1
    assert database.snapshot()["proofs"] == ()
    await store.commit(chain.adds(1))


async def test_the_reply_to_a_commit_is_lost(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """It is there, its caller is told that nobody knows, and it was sent once."""
    host, _, port = server.host_port.rpartition(":")
    with Relay(host, int(port)) as relay:
        calling = Calling("store.before_commit")
        url = database.location.replace(f":{port}/", f":{relay.port}/")
        store, chain = opened(url, failpoints=calling), Chain.of_run()
        await store.commit(chain.adds(1))
        before = store.commits
        calling.then = relay.lose_reply
        with pytest.raises(FateUnknown):
            await store.commit(chain.adds(1, proof=a_proof()))
        assert relay.lost.is_set()
        assert store.commits == before
        assert await there(store, chain) == 2
        await store.commit(chain.adds(1))
        assert await there(store, chain) == 3


async def test_the_reply_to_a_set_and_its_commit_is_lost(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """As it is without anything that tests break at: all of it is one round, and it is not sent once more."""
    host, _, port = server.host_port.rpartition(":")
    with Relay(host, int(port)) as relay:
        store, chain = opened(database.location.replace(f":{port}/", f":{relay.port}/")), Chain.of_run()
        await store.commit(chain.adds(1))
        before = store.commits
        relay.lose_reply()
        (told,) = await asyncio.gather(store.commit(chain.adds(1, proof=a_proof())), return_exceptions=True)
        assert type(told) is FateUnknown
        assert relay.lost.is_set()
        assert store.commits == before
        assert await there(store, chain) == 2
        assert len(database.snapshot()["proofs"]) == 1
        await store.commit(chain.adds(1))
        assert await there(store, chain) == 3


def test_a_link_that_broke_still_waits(server: PostgresServer, database: PostgresDatabase) -> None:
    """The number of its old socket is somebody else's by then, who may have something to read at any time."""
    host, _, port = server.host_port.rpartition(":")
    with Relay(host, int(port)) as relay, ExitStack() as files:
        link = Link(database.location.replace(f":{port}/", f":{relay.port}/"), Manner())
        files.callback(link.close)
        asked = [Ask(Text("SELECT 1", ()), ())]
        link.round(asked)
        relay.lose_reply()
        with pytest.raises(Lost):
            link.round(asked)
        for _ in range(64):
            files.enter_context(Path(os.devnull).open("rb"))
        assert link.round(asked)[0].rows == [(1,)]
        assert link._ready(select.POLLIN, 0) == 0


async def test_the_reply_to_the_statements_is_lost(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """Nothing was committed, so the set is sent once more, and is there once."""
    host, _, port = server.host_port.rpartition(":")
    with Relay(host, int(port)) as relay:
        calling = Calling("store.before_apply")
        url = database.location.replace(f":{port}/", f":{relay.port}/")
        store, chain = opened(url, failpoints=calling), Chain.of_run()
        await store.commit(chain.adds(1))
        calling.then = relay.lose_reply
        await store.commit(chain.adds(1, proof=a_proof()))
        assert relay.lost.is_set()
        assert await there(store, chain) == 2
        assert len(database.snapshot()["proofs"]) == 1


async def test_the_servers_log_says_what_a_race_is_and_no_key_of_a_run(
    server: PostgresServer, database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    """Each refusal is an error to the server, and its administrator reads them."""
    store, chain = opened(database.location), Chain.of_run(key="the-order-of-mrs-smith")
    late = chain.copy()
    await store.commit(chain.adds(1))
    said = server.log.stat().st_size
    for writes in (late.adds(1), Chain("acme", a_run(key=chain.the_run.key)).adds(1)):
        with pytest.raises(VersionMoved):
            await store.commit(writes)
    told = server.log.read_bytes()[said:].decode()
    assert told.count('ERROR:  invalid input syntax for type integer: "stepgrant: others were faster') == 2
    assert "the-order-of-mrs-smith" not in told


async def test_a_lock_that_somebody_else_holds(
    database: PostgresDatabase, opened: Callable[..., PostgresStore]
) -> None:
    store, chain = opened(database.location, manner=Manner(lock_s=0.2)), Chain.of_run()
    await store.commit(chain.adds(1))
    with psycopg.connect(database.location) as other:
        other.execute("SELECT * FROM runs FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="holds a lock for too long") as caught:
            await store.commit(chain.copy().adds(1, proof=a_proof()))
        assert type(caught.value) is StoreUnavailable
        assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
    assert database.snapshot()["proofs"] == ()
    await store.commit(chain.adds(1))


async def test_a_read_only_login(database: PostgresDatabase, opened: Callable[..., PostgresStore]) -> None:
    """As a replica answers: reads are served, and what would write says where to go."""
    with psycopg.connect(database.location, autocommit=True) as admin:
        name = database.location.rpartition("/")[2]
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    store = opened(database.location)
    with pytest.raises(StoreUnavailable, match="name the primary in database_url"):
        await store.commit(Chain.of_run().adds(1))
    assert (await store.load(Query("acme"))).tenant.seq == 0
