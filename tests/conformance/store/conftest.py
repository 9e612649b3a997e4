"""One suite for the ports `Store`, `Reads` and `SecretSource`, run over every adapter of `adapters.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from conformance.store.adapters import ADAPTERS, NEEDS, AnyStore, Database, PostgresDatabase
from conformance.store.making import SetClock


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(*NEEDS.get(name, ()))) for name in sorted(ADAPTERS)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = ADAPTERS[request.param].make(tmp_path, request)
    yield made
    if isinstance(made, PostgresDatabase):
        made.over(request.getfixturevalue("postgres_server"))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(database: Database, clock: SetClock) -> AsyncIterator[AnyStore]:
    opened = database.open(clock)
    yield opened
    await opened.close()
