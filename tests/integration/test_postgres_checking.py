"""A check of a large PostgreSQL database: what goes over whole tables may take longer than a call of an agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from conformance.store.making import Chain
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.scanning import Stray
from stepgrant_broker.store import schema
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.postgres_link import Manner

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

pytestmark = pytest.mark.needs("postgres")


async def test_a_question_over_whole_tables_is_not_given_up_with_the_others(postgres_server: PostgresServer) -> None:
    """Somebody who holds a table plays its size: both questions wait for it, and only the call of an agent gives up."""
    url = postgres_server.create_database()
    schema.migrate(url)
    store = PostgresStore(url, manner=Manner(statement_s=2.0, lock_s=300.0))
    chain = Chain.of_run()
    await store.commit(chain.adds(3))
    async with await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(store.strays())
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await store.entries("acme", chain.run)
        assert not asked.done()
        await holder.commit()
    assert Stray("entries", (("tenant", "acme"),)) in await asked  # only its run was written, not the tenant
    await store.close()
