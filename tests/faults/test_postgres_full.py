"""PostgreSQL has no room left, on its disk or for connections: refused by name, nothing half applied, and it goes on.

The connections are really used up. The disk is not full: a trigger gives the error that PostgreSQL gives then (53100),
where it would give it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from conformance.store.adapters import PostgresDatabase
from conformance.store.making import Chain, a_proof, a_step
from cuts import WRITER
from faults.recovering import BACK_S, PATIENCE_S, there, until_served
from faults.unsaid import shows_no_secret
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import schema
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.postgres_link import PAUSE_S

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

SLOTS: Final = 12
OURS: Final = 2
"""The connections of a store with one reader."""
FULL: Final = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
    CREATE {}
"""
FULL_WHERE: Final = {
    "entries": "TRIGGER full_disk BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION full_disk()",
    "commit": (
        "CONSTRAINT TRIGGER full_disk AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()"
    ),
}


@pytest.fixture(scope="module")
def server(new_postgres: Callable[..., PostgresServer]) -> Iterator[PostgresServer]:
    with new_postgres(options={"max_connections": str(SLOTS), "max_wal_senders": "0"}) as made:
        yield made


@pytest.fixture
def database(server: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase.on(server)


@pytest.fixture
async def store(database: PostgresDatabase) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(database.location, readers=1)
    yield made
    await made.close()


async def take(stack: ExitStack, database: PostgresDatabase, number: int) -> list[psycopg.Connection[Any]]:
    """So many connections, as soon as the server's processes that end have made room for them."""
    held: list[psycopg.Connection[Any]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(held) < number:
            with suppress(psycopg.OperationalError):
                held.append(stack.enter_context(psycopg.connect(database.location)))
                continue
            await asyncio.sleep(0.01)
    return held


async def test_no_connection_left(server: PostgresServer, database: PostgresDatabase, store: PostgresStore) -> None:
    """Those that are open still serve; new ones there are none. Who then loses one gets none back until one is free."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    assert await there(store, chain) == 1
    with ExitStack() as stack:
        held = await take(stack, database, SLOTS - OURS)
        await store.commit(chain.adds(1))
        with pytest.raises(StoreUnavailable, match="no connection left; raise max_connections") as caught:
            schema.check(database.location)
        shows_no_secret(caught.value, server)

        assert held[0].execute(WRITER).rowcount == 1
        await take(stack, database, 1)  # the writer's
        for pause in (0.0, PAUSE_S):
            await asyncio.sleep(pause)
            with pytest.raises(StoreUnavailable, match="no connection left; raise max_connections") as caught:
                await store.commit(chain.copy().adds(1, proof=a_proof()))
            assert type(caught.value) is StoreUnavailable
            assert caught.value.retry_after_ms
            shows_no_secret(caught.value, server)
        assert await there(store, chain) == 2
    assert await until_served(lambda: store.commit(chain.copy().bare(proof=a_proof()))) < BACK_S
    await store.commit(chain.adds(1))
    assert await there(store, chain) == 3
    assert len(database.snapshot()["proofs"]) == 1


@pytest.mark.parametrize("where", FULL_WHERE)
async def test_a_full_disk(
    server: PostgresServer, database: PostgresDatabase, store: PostgresStore, where: str
) -> None:
    """Nobody is told that it is done, nothing of it is there, what is there is read on, and it ends with the fault."""
    chains = [Chain.of_run() for _ in range(4)]
    for chain in chains:
        await store.commit(chain.adds(1))
    before = database.snapshot()
    with psycopg.connect(database.location, autocommit=True) as db:
        db.execute(FULL.format(FULL_WHERE[where]).encode())
        calls = [store.commit(chain.copy().adds(1, rows=(a_step(chain.the_run),), proof=a_proof())) for chain in chains]
        for fault in await asyncio.gather(*calls, return_exceptions=True):
            assert type(fault) is StoreUnavailable
            assert fault.detail.startswith(
                "the server's disk is full; make room, nothing that was acknowledged is lost"
            )
            assert fault.retry_after_ms
            shows_no_secret(fault, server)
        assert database.snapshot() == before
        assert await there(store, chains[0]) == 1
        db.execute("DROP FUNCTION full_disk CASCADE")
    await asyncio.gather(*[store.commit(chain.adds(1, proof=a_proof())) for chain in chains])
    assert [await there(store, chain) for chain in chains] == [2] * 4
