"""Doors with an issuer process behind them, for attacks on identity tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from door import Door, trusting
from fakes.served import served
from issuer_process import Issuer, issuer


@pytest.fixture(scope="module")
def process() -> Iterator[Issuer]:
    with issuer() as running:
        running.rotate("RS256")
        running.add_key("RS256", use="jwt-svid")
        running.add_key("ES256")
        yield running


@pytest.fixture
async def door(tmp_path: Path, process: Issuer) -> AsyncIterator[Door]:
    process.heal()
    async with served(tmp_path, identities=lambda ports: trusting(ports, process, tmp_path)) as broker:
        made = Door(broker, process)
        made.before = await made.state()
        yield made
