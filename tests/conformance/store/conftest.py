"""One suite for the ports `Store`, `Reads` and `SecretSource`, run over every adapter of `adapters.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conformance.store.adapters import ADAPTERS, NEEDS, AnyStore, Database
from conformance.store.making import SetClock


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(*NEEDS.get(name, ()))) for name in sorted(ADAPTERS)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return ADAPTERS[request.param].make(tmp_path, request)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(database: Database, clock: SetClock) -> AsyncIterator[AnyStore]:
    opened = database.open(clock)
    yield opened
    await opened.close()
