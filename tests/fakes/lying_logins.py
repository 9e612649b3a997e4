"""What tests of `vault-database` do with a Vault that lies: its paths, lies about members, minting and taking back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from conformance.issuer.adapters import LOGIN
from fakes.lying_vault import Answer
from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer

CREATE: Final = "auth/token/create/stepgrant"
CREDS: Final = "database/creds/orders-rw"
ROLE: Final = "database/roles/orders-rw"


async def mint(issuer: VaultDatabaseIssuer, order: GrantOrder = LOGIN) -> Minted:
    minted = await issuer.mint(order, await issuer.intend(order))
    issuer.check(order, minted)
    return minted


async def revoke(
    issuer: VaultDatabaseIssuer, handle: str | None, lease: str | None = None, *, now: int = LOGIN.issued_at
) -> bool:
    return await issuer.revoke(tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=lease, now=now)


async def until_revoked(issuer: VaultDatabaseIssuer, handle: str | None) -> None:
    for _ in range(2_000):
        if await revoke(issuer, handle):
            return
        await asyncio.sleep(0.02)
    pytest.fail("it was never confirmed")


def changed(where: str, **members: object) -> Callable[[Answer], Answer]:
    """A lie that changes members of `where` ("" for the answer itself)."""

    def change(answer: Answer) -> Answer:
        body = {**answer.body, where: {**answer.body[where], **members}} if where else {**answer.body, **members}
        return Answer(answer.status, body)

    return change
