"""The traps of database logins (`standards.md` §4), each on a real Vault and a real PostgreSQL.

Where a trap is Vault's, its test first shows that Vault really does this, then that we do not step into it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from changing import replace
from conformance.issuer.adapters import LOGIN
from logins import REVOCATION, ROLE, DatabaseLab, database_lab
from stepgrant_broker.domain.errors import IssuerRefused
from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.issuers.grant_tokens import accessor_of, policy_name
from stepgrant_services import ServiceError

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

PATIENCE_S = 40.0


@pytest.fixture
async def lab(vault_server: VaultServer, postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[DatabaseLab]:
    async with database_lab(vault_server, postgres_server, tmp_path) as made:
        yield made


async def revoke(lab: DatabaseLab, handle: str | None, lease: str | None = None, *, now: int = LOGIN.issued_at) -> bool:
    return await lab.issuer.revoke(tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=lease, now=now)


async def made(lab: DatabaseLab, order: GrantOrder = LOGIN) -> tuple[str | None, Minted]:
    handle = await lab.issuer.intend(order)
    minted = await lab.issuer.mint(order, handle)
    lab.issuer.check(order, minted)
    return handle, minted


async def until(gone: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(gone):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def creds(lab: DatabaseLab, token: str) -> dict[str, Any]:
    return lab.server.request("GET", f"{lab.config.mount}/creds/{ROLE}", token=token)


def grant_token(lab: DatabaseLab, **more: object) -> dict[str, Any]:
    """A token as the issuer makes it, but as root says."""
    body = {"policies": [policy_name(lab.config.name, ROLE)], "renewable": False, "meta": {"stepgrant": "test"}}
    auth: dict[str, Any] = lab.server.request("POST", "auth/token/create/stepgrant", {**body, **more})["auth"]
    return auth


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_with_one_use_gets_no_login_and_ours_has_no_limit(lab: DatabaseLab) -> None:
    with pytest.raises(ServiceError, match="one use left"):
        creds(lab, grant_token(lab, ttl="30s", num_uses=1)["client_token"])
    await until(lambda: lab.logins() == [])

    handle = await lab.issuer.intend(LOGIN)
    looked = lab.server.request("POST", "auth/token/lookup-accessor", {"accessor": accessor_of(handle or "")})["data"]
    assert looked["num_uses"] == 0
    assert (await lab.issuer.mint(LOGIN, handle)).lease is not None


async def test_the_grants_token_is_an_orphan_that_can_do_one_thing(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    looked = lab.server.request("POST", "auth/token/lookup-accessor", {"accessor": accessor_of(handle or "")})["data"]
    assert (looked["orphan"], looked["renewable"], looked["type"]) == (True, False, "service")
    assert looked["policies"] == [policy_name(lab.config.name, ROLE)]
    assert looked["explicit_max_ttl"] == 70
    assert 60 < looked["ttl"] <= 70
    assert looked["meta"] == {"stepgrant": "acme", "run": "run_01", "step": "charge", "jti": "grn_01"}

    lab.role("admin")
    token = lab.issuer._tokens.take(handle, LOGIN.jti).reveal()
    for method, path in (
        ("GET", f"{lab.config.mount}/creds/admin"),
        ("GET", f"{lab.config.mount}/roles/{ROLE}"),
        ("GET", "auth/token/lookup-self"),
        ("POST", "auth/token/create"),
        ("PUT", "sys/leases/renew"),
        ("GET", f"{lab.config.mount}/config/app"),
    ):
        with pytest.raises(ServiceError, match="answered 403"):
            lab.server.request(method, path, {} if method != "GET" else None, token=token)


async def test_the_grants_token_outlives_the_brokers_session(lab: DatabaseLab) -> None:
    """A child would die, and its login with it, whenever the broker logs in again."""
    _, minted = await made(lab)
    own = (await lab.vault.login.token()).reveal()
    lab.server.request("POST", "auth/token/revoke-self", {}, token=own)
    await asyncio.sleep(0.3)
    assert await lab.works(minted)


async def test_the_brokers_session_cannot_read_logins_itself(lab: DatabaseLab) -> None:
    own = (await lab.vault.login.token()).reveal()
    for method, path in (
        ("GET", f"{lab.config.mount}/creds/{ROLE}"),
        ("POST", f"{lab.config.mount}/roles/{ROLE}"),
        ("POST", "auth/token/create"),
        ("POST", "auth/token/create-orphan"),
        ("LIST", "sys/leases/lookup/"),
        ("PUT", "sys/leases/revoke-prefix/x"),
    ):
        with pytest.raises(ServiceError, match="answered 403"):
            lab.server.request(method, path, {} if method in {"POST", "PUT"} else None, token=own)
    assert lab.logins() == []


# --- leases ----------------------------------------------------------------------------------------------------------


async def test_a_lease_says_the_roles_life_but_dies_with_its_token(lab: DatabaseLab) -> None:
    lab.role(ttl_s=3600)
    begun = time.monotonic()
    answer = creds(lab, grant_token(lab, ttl="4s", explicit_max_ttl="4s")["client_token"])
    assert answer["lease_duration"] == 3600
    assert lab.lease(answer["lease_id"])["ttl"] > 3500
    assert len(lab.logins()) == 1
    await until(lambda: lab.logins() == [])
    assert time.monotonic() - begun > 3.9
    with pytest.raises(ServiceError, match="invalid lease"):
        lab.lease(answer["lease_id"])


async def test_a_role_that_lives_longer_than_the_grant_gets_no_token(lab: DatabaseLab) -> None:
    lab.role(ttl_s=3600)
    with pytest.raises(IssuerRefused, match="live 3600 s: set its default_ttl and max_ttl to at most 60s"):
        await lab.issuer.intend(LOGIN)
    lab.role(ttl_s=60)
    with pytest.raises(IssuerRefused, match="live 60 s, the grant is for 30 s"):
        await lab.issuer.intend(replace(LOGIN, expires_at=LOGIN.issued_at + 30_000))
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_a_role_that_was_changed_meanwhile_is_found_by_its_lease(lab: DatabaseLab) -> None:
    """The role was looked at less than a minute ago: then the reply is what tells."""
    handle, minted = await made(lab)
    await revoke(lab, handle, minted.lease)
    lab.role(ttl_s=3600)
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    with pytest.raises(IssuerRefused, match="would keep this login 3600 s, the grant is for 60 s: set default_ttl"):
        lab.issuer.check(LOGIN, minted)
    assert await revoke(lab, handle, minted.lease)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_revoking_at_once_means_that_it_is_gone_when_vault_answers(lab: DatabaseLab) -> None:
    for _ in range(5):
        handle, minted = await made(lab)
        assert await revoke(lab, handle, minted.lease)
        assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_a_login_whose_database_is_in_the_way_is_not_called_dead(lab: DatabaseLab) -> None:
    """`sync` tells of it; without it Vault says yes and tries in the background."""
    handle, minted = await made(lab)
    user = minted.fields["username"]
    lab.postgres.sql(f'create table owned_by_{user[-8:]} (); alter table owned_by_{user[-8:]} owner to "{user}"')
    with pytest.raises(IssuerRefused, match=r"Vault refused PUT sys/leases/revoke \(400\)"):
        await revoke(lab, handle, minted.lease)
    assert lab.logins() == [user]
    lab.postgres.sql(f"drop table owned_by_{user[-8:]}")
    assert await revoke(lab, handle, minted.lease)
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_without_its_lease_a_login_dies_with_its_token_but_is_not_called_dead_before_its_time(
    lab: DatabaseLab,
) -> None:
    """What another broker does after a crash between mint and record."""
    handle, minted = await made(lab)
    other = lab.config.build(lab.vault)
    named = {"tenant": LOGIN.tenant, "jti": LOGIN.jti}
    assert not await other.revoke(**named, handle=handle, lease=None, now=LOGIN.issued_at)
    await until(lambda: lab.logins() == [])
    assert lab.server.leftovers() == []
    assert not await lab.works(minted)
    assert not await other.revoke(**named, handle=handle, lease=None, now=LOGIN.issued_at + 100_000)
    assert await other.revoke(**named, handle=handle, lease=None, now=LOGIN.issued_at + 100_001)


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_live_session_ends_with_its_login(lab: DatabaseLab) -> None:
    handle, minted = await made(lab)
    session = await asyncio.to_thread(lab.connect, minted)
    session.execute("select 1")
    assert await revoke(lab, handle, minted.lease)
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    session.close()


async def test_a_session_survives_where_the_role_does_not_end_it_so_such_a_role_is_refused(lab: DatabaseLab) -> None:
    """Vault's own statements drop the role and say so; whoever was in stays in."""
    lab.role(revocation=REVOCATION[1:])
    answer = creds(lab, grant_token(lab, ttl="30s")["client_token"])
    login = Minted("login", {**answer["data"], **lab.config.fixed_fields()}, 0)
    session = await asyncio.to_thread(lab.connect, login)
    lab.server.request("PUT", "sys/leases/revoke", {"lease_id": answer["lease_id"], "sync": True})
    assert lab.logins() == []
    assert session.execute("select 1").fetchone() == (1,)
    session.close()

    with pytest.raises(IssuerRefused, match=r"sessions of .* survive their login: put SELECT pg_terminate_backend"):
        await lab.issuer.intend(LOGIN)


async def test_valid_until_only_stops_new_sessions_and_is_demanded_all_the_same(lab: DatabaseLab) -> None:
    """It is what ends a login while Vault is away; what is open stays open."""
    handle, minted = await made(lab)
    session = await asyncio.to_thread(lab.connect, minted)
    lab.postgres.sql(f"""alter role "{minted.fields["username"]}" valid until '2020-01-01'""")
    assert not await lab.works(minted)
    assert session.execute("select 1").fetchone() == (1,)
    session.close()
    assert await revoke(lab, handle, minted.lease)

    lab.role(creation=["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}'"])
    lab.issuer._roles.clear()
    with pytest.raises(IssuerRefused, match=r"do not end by themselves: add VALID UNTIL '\{\{expiration\}\}'"):
        await lab.issuer.intend(LOGIN)


async def test_a_login_ends_in_postgresql_when_its_lease_does(lab: DatabaseLab) -> None:
    _, minted = await made(lab)
    (user,) = lab.logins()
    assert user == minted.fields["username"]
    left = lab.postgres.sql("select extract(epoch from rolvaliduntil - now())::int from pg_roles where rolname ~ '^v-'")
    assert 50 < int(left[0]) <= 66
