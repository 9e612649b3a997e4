"""A ledger that the real use cases wrote once, copied for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.ledgers import Ledger, copied, write


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its folder and its run."""
    folder = tmp_path_factory.mktemp("written")
    return folder, asyncio.run(write(folder))


@pytest.fixture
async def ledger(written: tuple[Path, str], tmp_path: Path) -> AsyncIterator[Ledger]:
    async with copied(*written, tmp_path / "ledger") as ledger:
        yield ledger
