"""A real Vault for tests of what is built on it: our client under the root token, and keys and mounts of one's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stepgrant_broker.signing.transit import TransitSigner
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import TokenFile
from stepgrant_broker.vault.wire import Where, Wire
from stepgrant_broker.wiring.clock import SystemClock

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock
    from stepgrant_services import VaultServer

TYPES = {"grants": "ecdsa-p256", "access": "ecdsa-p256", "heads": "ed25519"}


def unique(name: str) -> str:
    """A name that no other test has: the worker's Vault is shared."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def mounted(server: VaultServer, kind: str, **options: object) -> str:
    """The path of a new mount of this kind."""
    path = unique(kind)
    server.request("POST", f"sys/mounts/{path}", {"type": kind, **options})
    return path


def transit_keys(server: VaultServer, mount: str) -> dict[str, str]:
    """A key for each purpose of a signer: purpose to name."""
    for purpose, kind in TYPES.items():
        server.request("POST", f"{mount}/keys/sg-{purpose}", {"type": kind})
    return {purpose: f"sg-{purpose}" for purpose in TYPES}


@asynccontextmanager
async def client(addr: str, token_file: Path) -> AsyncIterator[Vault]:
    """Our client of this Vault, under the token in this file."""
    wire = Wire(Where(addr))
    vault = Vault(wire, Login(wire, TokenFile(token_file)))
    vault.start()
    try:
        yield vault
    finally:
        await vault.close()


@asynccontextmanager
async def transit_signer(
    server: VaultServer,
    *,
    mount: str | None = None,
    names: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    **times: float,
) -> AsyncIterator[TransitSigner]:
    """A signer over keys of its own."""
    mount = mount or mounted(server, "transit")
    names = names or transit_keys(server, mount)
    async with client(server.addr, server.root_token_file) as vault:
        yield TransitSigner(vault, mount, names, clock or SystemClock(), **times)
