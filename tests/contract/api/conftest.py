"""The real application over real adapters, for every test of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from fakes.served import Broker, served


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """One served broker in a folder of its own."""
    async with served(tmp_path) as broker:
        yield broker
