"""A Vault that lies when it is told to, and the issuer on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fakes.lying_vault import LyingVault
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


@pytest.fixture
async def issuer(fake: LyingVault, tmp_path: Path) -> AsyncIterator[VaultDatabaseIssuer]:
    async with fake.issuer(tmp_path) as made:
        yield made
