"""Vault sealed, restarted, killed or without its database, at every point of a grant: nothing wrong is ever confirmed.

Durable Vaults of their own (raft storage); "back" means unsealed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from conformance.issuer.adapters import LOGIN
from lateness import lateness
from logins import DatabaseLab, database_lab
from stepgrant_broker.domain.errors import IssuerUnavailable

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

PATIENCE_S = 50.0
LOCK = 4711


@pytest.fixture
async def lab(
    new_vault: Callable[..., VaultServer], postgres_server: PostgresServer, tmp_path: Path
) -> AsyncIterator[DatabaseLab]:
    with new_vault(durable=True) as server:
        async with database_lab(server, postgres_server, tmp_path) as made:
            yield made


async def revoke(lab: DatabaseLab, handle: str | None, lease: str | None = None, *, now: int = LOGIN.issued_at) -> bool:
    return await lab.issuer.revoke(tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=lease, now=now)


async def served(lab: DatabaseLab) -> None:
    """A whole grant works again: the first that is asked for, so nobody waits for longer than a grant takes."""
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    assert await revoke(lab, handle, minted.lease)


def makes_a_login(postgres: PostgresServer) -> bool:
    """The login's statement is under way in PostgreSQL."""
    return bool(postgres.sql("select 1 from pg_stat_activity where state = 'active' and query like 'SELECT pg_adv%'"))


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(true):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@contextmanager
def held_up(lab: DatabaseLab) -> Iterator[None]:
    """While the block runs, a login that Vault makes waits in PostgreSQL for a lock."""
    waits = f"SELECT pg_advisory_xact_lock({LOCK})"
    lab.role(
        creation=[waits, "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"]
    )
    with psycopg.connect(lab.postgres.url()) as holding:
        holding.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        yield


async def test_a_sealed_vault_gives_nothing_and_confirms_nothing(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    second = await lab.issuer.intend(LOGIN)

    lab.server.seal()
    with pytest.raises(IssuerUnavailable, match="sealed or not initialised; unseal it"):
        await lab.issuer.intend(LOGIN)
    with pytest.raises(IssuerUnavailable, match="unseal it"):
        await lab.issuer.mint(LOGIN, second)
    for lease in (minted.lease, None):
        with pytest.raises(IssuerUnavailable, match="unseal it"):
            await revoke(lab, handle, lease, now=LOGIN.issued_at + 10**9)
    assert lab.logins() == [minted.fields["username"]]

    lab.server.unseal()
    assert await revoke(lab, handle, minted.lease)
    assert await revoke(lab, second)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])
    await served(lab)


async def test_after_a_restart_what_was_given_can_be_taken_back(lab: DatabaseLab) -> None:
    """Leases and tokens are in raft; the broker's session is as good as before, on a new connection."""
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    await asyncio.to_thread(lab.server.restart)
    assert await lab.works(minted)
    assert await revoke(lab, handle, minted.lease)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])
    assert lab.vault.login.logins == 1


async def test_an_intent_survives_a_restart_of_vault_within_its_deadline(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    await asyncio.to_thread(lab.server.restart)
    assert handle is not None
    if handle in lab.issuer._tokens._held:
        lab.issuer.check(LOGIN, minted := await lab.issuer.mint(LOGIN, handle))
        assert await revoke(lab, handle, minted.lease)
    else:
        assert await revoke(lab, handle)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_a_vault_that_is_killed_is_unavailable_at_every_call_and_serves_when_it_is_back(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    second = await lab.issuer.intend(LOGIN)
    lab.server.kill()
    async with lateness() as late:
        begun = time.monotonic()
        with pytest.raises(IssuerUnavailable, match=r"cannot be reached|connection broke"):
            await lab.issuer.intend(LOGIN)
        with pytest.raises(IssuerUnavailable, match=r"cannot be reached|connection broke"):
            await lab.issuer.mint(LOGIN, second)
        with pytest.raises(IssuerUnavailable, match=r"cannot be reached|connection broke"):
            await revoke(lab, handle, minted.lease)
        took = time.monotonic() - begun
    assert took < 2 + late.seconds, "nobody waits for a Vault that is not there"

    await asyncio.to_thread(lab.server.start)
    assert await revoke(lab, handle, minted.lease)
    await served(lab)
    await revoke(lab, second)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_a_vault_that_dies_while_it_makes_a_login_leaves_nothing_that_is_called_dead(
    lab: DatabaseLab, postgres_server: PostgresServer
) -> None:
    """The login waits in PostgreSQL for a lock when Vault is killed: nobody was told of it."""
    with held_up(lab):
        handle = await lab.issuer.intend(LOGIN)
        minting = asyncio.create_task(lab.issuer.mint(LOGIN, handle))
        await until(lambda: makes_a_login(postgres_server))
        lab.server.kill()
        with pytest.raises(IssuerUnavailable, match="connection broke"):
            await minting
    await asyncio.to_thread(lab.server.start)
    assert not await revoke(lab, handle), "it may have been made, and nobody knows its lease"
    assert lab.server.leftovers() == []
    assert await revoke(lab, handle, now=LOGIN.issued_at + 100_001)
    await until(lambda: not makes_a_login(postgres_server))
    for user in lab.logins():
        # Vault died between the login and its lease: VALID UNTIL is what ends it. Nobody has the password.
        assert postgres_server.sql("select rolvaliduntil < now() + interval '66 s' from pg_roles where rolname ~ '^v-'")
        postgres_server.sql(f'drop role "{user}"')


async def test_a_token_that_is_revoked_while_its_login_is_made_leaves_it_to_the_broker(
    lab: DatabaseLab, postgres_server: PostgresServer
) -> None:
    """Vault registers the login after it listed what hangs on the token: revoking the accessor alone loses it."""
    with held_up(lab):
        handle = await lab.issuer.intend(LOGIN)
        minting = asyncio.create_task(lab.issuer.mint(LOGIN, handle))
        await until(lambda: makes_a_login(postgres_server))
        assert not await revoke(lab, handle), "the login is being made"
    minted = await minting
    assert minted.lease is not None
    await asyncio.sleep(0.5)
    assert lab.logins() == [minted.fields["username"]], "Vault took it back by itself; then this trap is gone"
    assert await revoke(lab, handle), "now this process knows the lease"
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_without_its_database_vault_confirms_no_death(
    new_postgres: Callable[..., PostgresServer], vault_server: VaultServer, tmp_path: Path
) -> None:
    with new_postgres() as postgres:
        async with database_lab(vault_server, postgres, tmp_path) as lab:
            handle = await lab.issuer.intend(LOGIN)
            minted = await lab.issuer.mint(LOGIN, handle)
            await asyncio.to_thread(postgres.stop)
            with pytest.raises(IssuerUnavailable, match="PUT sys/leases/revoke"):
                await revoke(lab, handle, minted.lease)
            with pytest.raises(IssuerUnavailable):
                await lab.mint(LOGIN)
            await asyncio.to_thread(postgres.start)
            assert await revoke(lab, handle, minted.lease)
            assert not await lab.works(minted)
