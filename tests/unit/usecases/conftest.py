"""A hand over real adapters for every test of this folder."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from fakes.hand import Hand, hand
from fakes.outside import OutsideIssuer


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Hand]:
    """One broker in a folder of its own."""
    async with hand(tmp_path) as broker:
        yield broker


@pytest_asyncio.fixture
async def issuer(broker: Hand) -> OutsideIssuer:
    """An outside issuer that the broker has."""
    made = OutsideIssuer()
    broker.ports = replace(broker.ports, issuers={**broker.ports.issuers, "outside": made})
    return made
