"""An address that leads to a standby for a while: a real one, which replays a copy of the primary's files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from conformance.store.making import Chain
from cuts import ALL
from faults.relay import Relay
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store import postgres_link, schema
from stepgrant_broker.store.postgres import PostgresStore

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

WHERE: Final = "name the primary in database_url"


@pytest.fixture
def primary(new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return new_postgres()


@pytest.fixture
def standby(primary: PostgresServer, new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """What it knows ends where the copy was made: the primary is gone for it."""
    schema.migrate(primary.create_database("broker"))
    folder = primary.folder / "standby"
    primary.stop()
    folder.mkdir(mode=0o711)
    shutil.copytree(primary.data, folder / "data")
    shutil.copy(primary.password_file, folder)
    keep_owners(primary.data, folder / "data")
    primary.start()
    (folder / "data" / "standby.signal").touch()
    return new_postgres(folder=folder)


def keep_owners(source: Path, copy: Path) -> None:
    """PostgreSQL refuses files that are not its own."""
    owner = source.stat()
    for one in (copy, *copy.rglob("*")):
        shutil.chown(one, owner.st_uid, owner.st_gid)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two tries to connect."""
    monkeypatch.setattr(postgres_link, "PAUSE_S", 0.0)


@pytest.fixture
def relay(primary: PostgresServer) -> Iterator[Relay]:
    with Relay("127.0.0.1", primary.port) as made:
        yield made


@pytest.mark.usefixtures("at_once")
async def test_a_broker_comes_back_from_a_standby_by_itself(
    primary: PostgresServer, standby: PostgresServer, relay: Relay
) -> None:
    """It reads and writes nothing there, and is not ready; as soon as the address is right again, it is."""
    url = primary.url("broker").replace(f":{primary.port}/", f":{relay.port}/")
    store = PostgresStore(url, readers=1)
    try:
        chain = Chain.of_run()
        await store.commit(chain.adds(1))
        relay.aim("127.0.0.1", standby.port)
        with psycopg.connect(standby.url("broker")) as there:
            assert there.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=WHERE):
                await store.commit(Chain.of_run().adds(1))
            with pytest.raises(StoreUnavailable, match=WHERE):
                await store.load(Query("acme", run=chain.run))
        relay.aim("127.0.0.1", primary.port)
        assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
        await store.commit(chain.adds(1))
    finally:
        await store.close()


@pytest.mark.usefixtures("at_once")
async def test_a_session_that_began_read_only_is_not_kept(primary: PostgresServer) -> None:
    store = PostgresStore(primary_database(primary), readers=1)
    try:
        primary.sql('ALTER DATABASE "broker" SET default_transaction_read_only = on')
        primary.sql(ALL)
        with pytest.raises(StoreUnavailable, match=WHERE):
            await store.commit(Chain.of_run().adds(1))
        primary.sql('ALTER DATABASE "broker" SET default_transaction_read_only = off')
        await store.commit(Chain.of_run().adds(1))
    finally:
        await store.close()


def primary_database(server: PostgresServer) -> str:
    url = server.create_database("broker")
    schema.migrate(url)
    return url
