"""An installation whose database can be put back to what it was before, as an operator does with a backup."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.store.making import unique
from fakes.clock import ArmedFailpoints, StandingClock
from fakes.hand import REGO, Hand
from fakes.world import AUDIENCE
from stepgrant_broker.config import Settings, explicit_settings
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator
from stepgrant_broker.wiring import Broker, build, bundle_of, opened
from stepgrant_broker.wiring.restoring import Behind, look_behind, restore_store
from stepgrant_broker.wiring.seams import Seams

if TYPE_CHECKING:
    import pytest

    from stepgrant_broker.usecases.restored import Restored
    from stepgrant_services import PostgresServer

JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


@dataclass
class Place:
    """A broker's folder and database. No broker may run while the database is copied."""

    settings: Settings
    backup: Callable[[], None]
    put_back: Callable[[], None]
    again: Callable[[Path], Place]
    """The same once more, in another folder, with the backup that was made."""
    clock: StandingClock = field(default_factory=StandingClock)
    hand: Hand | None = None

    def copied(self, folder: Path) -> Place:
        """As it stands now, in a folder of its own; on PostgreSQL with the backup alone, so put that back first."""
        made = self.again(folder)
        made.clock.tick(self.clock.now() - made.clock.now())
        made.hand = None if self.hand is None else replace(self.hand, clock=made.clock)
        return made

    @asynccontextmanager
    async def broker(self, **changed: Any) -> AsyncIterator[tuple[Broker, Hand]]:  # noqa: ANN401 - settings
        """A broker over it, with its use cases in the hand of a test."""
        failpoints = ArmedFailpoints()
        settings = self.settings.model_copy(update=changed)
        seams = Seams(clock=self.clock, failpoints=failpoints)
        policy = bundle_of({"stepgrant/main.rego": REGO})
        async with build(settings, create=True, policy=policy, seams=seams) as broker:
            if self.hand is None:
                self.hand = await _hand(broker, self.clock, failpoints)
            self.hand = replace(self.hand, ports=broker.ports, failpoints=failpoints)
            yield broker, self.hand

    def beside(self, **changed: Any) -> AbstractAsyncContextManager[Broker]:  # noqa: ANN401 - settings
        """What commands open, on this machine's own clock."""
        return opened(self.settings.model_copy(update=changed), looking=True)

    async def restore(self, **changed: Any) -> tuple[Behind, Restored, str]:  # noqa: ANN401 - settings
        """`stepgrant db restored`."""
        async with self.beside(**changed) as broker:
            behind = await look_behind(broker)
            return (behind, *await restore_store(broker, behind, "the disk failed", lambda _: None))


async def _hand(broker: Broker, clock: StandingClock, failpoints: ArmedFailpoints) -> Hand:
    ports = broker.ports
    agent = await enroll(ports, "acme", None, Enrolment("agent", ("agent",), (), JWK, "j1"))
    server = await enroll(ports, "acme", None, Enrolment("tool", (), (AUDIENCE,), JWK, "j2"))
    token = await create_operator(ports, "acme", None, name="Olga", roles=["operator"])
    workload, tool = await ports.reads.workload(agent["id"]), await ports.reads.workload(server["id"])
    assert workload is not None
    assert tool is not None
    operator = await authenticate_operator(ports, token["token"])
    return Hand(ports, clock, failpoints, broker.store, None, workload, tool, operator)  # type: ignore[arg-type]


def _settings(folder: Path, **more: Any) -> Settings:  # noqa: ANN401 - settings
    return explicit_settings(
        data_dir=folder / "broker", tenant="acme", test_mode=True, sweep_ms=600_000, log_every_ms=60_000, **more
    )


def on_sqlite(folder: Path) -> Place:
    """The database is a file and what SQLite keeps beside it; the keys are no part of the backup."""
    settings, copy = _settings(folder), folder / "backup"
    data = settings.data_dir

    def move(source: Path, target: Path) -> None:
        target.mkdir(mode=0o700, exist_ok=True)
        for path in target.glob("stepgrant.db*"):
            path.unlink()
        for path in source.glob("stepgrant.db*"):
            shutil.copy2(path, target / path.name)

    def again(other: Path) -> Place:
        shutil.copytree(folder, other, dirs_exist_ok=True)
        return on_sqlite(other)

    return Place(settings, lambda: move(data, copy), lambda: move(copy, data), again)


def on_postgres(folder: Path, server: PostgresServer, name: str | None = None) -> Place:
    """A database from which another one is made, and back."""
    name = name or server.create_database().rpartition("/")[2].partition("?")[0]
    copy = f"{name}_copy"

    def move(source: str, target: str) -> None:
        server.sql(f'drop database if exists "{target}"')
        server.sql(f'create database "{target}" template "{source}"')

    def again(other: Path) -> Place:
        shutil.copytree(folder, other, dirs_exist_ok=True)
        named = unique("db")
        move(copy, f"{named}_copy")  # the newest one costs a second, and no test asks for it
        return on_postgres(other, server, named)

    settings = _settings(folder, database_url=server.url(name))
    return Place(settings, lambda: move(str(name), copy), lambda: move(copy, str(name)), again)


def place_on(store: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    """One on `sqlite` or `postgres`."""
    if store == "sqlite":
        return on_sqlite(folder)
    return on_postgres(folder, request.getfixturevalue("postgres_server"))
