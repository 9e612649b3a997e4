"""A hand over real adapters for every test of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from fakes.hand import Hand, hand


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Hand]:
    """One broker in a folder of its own."""
    async with hand(tmp_path) as broker:
        yield broker
