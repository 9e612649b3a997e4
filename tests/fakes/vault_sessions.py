"""Sessions with a Vault that lies: files, methods and clients for tests of the login."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fakes.lying_vault import SECRET_ID, LyingVault
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import AppRole, Method
from stepgrant_broker.vault.wire import Where, Wire

LOGIN: Final = "auth/approle/login"
SELF: Final = "auth/token/lookup-self"
RENEW: Final = "auth/token/renew-self"


def private(folder: Path, text: str, name: str = "secret") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def approle(folder: Path, secret_id: str = SECRET_ID) -> AppRole:
    return AppRole("approle", "role", private(folder, secret_id))


@asynccontextmanager
async def vault_of(fake: LyingVault, method: Method, *, start: bool = True) -> AsyncIterator[Vault]:
    wire = Wire(Where(fake.addr))
    vault = Vault(wire, Login(wire, method))
    if start:
        vault.start()
    try:
        yield vault
    finally:
        await vault.close()


async def until(done: object, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def count(fake: LyingVault, path: str) -> int:
    return [one.path for one in fake.asked].count(path)
