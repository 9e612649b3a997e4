"""A ledger that the real use cases wrote once, copied for each test; and a log of a store of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conformance.store.making import NOW, SetClock
from cosigners import Cosigners
from fakes.ledgers import Ledger, copied, write
from logs import ORIGIN
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.wiring.fresh import new_database


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its folder and its run."""
    folder = tmp_path_factory.mktemp("written")
    return folder, asyncio.run(write(folder))


@pytest.fixture
async def ledger(written: tuple[Path, str], tmp_path: Path) -> AsyncIterator[Ledger]:
    async with copied(*written, tmp_path / "ledger") as ledger:
        yield ledger


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    path = tmp_path / "log.db"
    new_database(path)
    opened = SqliteStore(path, clock=SetClock())
    await opened.log_origin(ORIGIN)
    yield opened
    await opened.close()


@pytest.fixture
def signer(tmp_path: Path) -> LocalSigner:
    return LocalSigner.open(tmp_path / "keys", create=True)


@pytest.fixture
def sequencer(store: SqliteStore, signer: LocalSigner) -> Sequencer:
    return Sequencer(store, signer, SetClock(NOW + 5), ORIGIN)


@pytest.fixture
async def cosigners(sequencer: Sequencer) -> Cosigners:
    return Cosigners(["alice", "bob"], "group both all alice bob\nquorum both", (await sequencer.keys())[0])
