"""What a real Vault refuses is named with its mending, leaves nothing alive, and tells no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from changing import replace
from conformance.issuer.adapters import LOGIN
from heard import capture_logs
from logins import CREATION, ROLE, TERMINATION, DatabaseLab, database_lab
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.issuers.grant_tokens import accessor_of, policy_name
from stepgrant_broker.issuers.vault_roles import probe
from stepgrant_broker.vault.wire import VaultToken

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer


@pytest.fixture
async def lab(vault_server: VaultServer, postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[DatabaseLab]:
    async with database_lab(vault_server, postgres_server, tmp_path) as made:
        yield made


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as caught:
        yield caught


async def revoke(lab: DatabaseLab, handle: str | None, lease: str | None = None, *, now: int = LOGIN.issued_at) -> bool:
    return await lab.issuer.revoke(tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=lease, now=now)


async def made(lab: DatabaseLab, order: GrantOrder = LOGIN) -> tuple[str | None, Minted]:
    handle = await lab.issuer.intend(order)
    minted = await lab.issuer.mint(order, handle)
    lab.issuer.check(order, minted)
    return handle, minted


# --- the probe of doctor --------------------------------------------------------------------------------------------


async def test_the_probe_names_what_is_missing(lab: DatabaseLab) -> None:
    assert await probe(lab.vault, lab.config.mount, lab.config.roles, 60) == ()
    lab.role(ttl_s=0, creation=["CREATE ROLE x"], revocation=[])
    found = await probe(lab.vault, lab.config.mount, lab.config.roles, 60)
    assert [words in line for line, words in zip(found, ("default_ttl", "VALID UNTIL", "pg_terminate"), strict=True)]
    lab.role(ttl_s=30, creation=[CREATION[0].replace("VALID UNTIL", "valid  until")], revocation=[TERMINATION.lower()])
    assert await probe(lab.vault, lab.config.mount, lab.config.roles, 60) == ()


# --- refusals of Vault -----------------------------------------------------------------------------------------------


async def test_a_role_that_is_not_there_is_named(lab: DatabaseLab) -> None:
    lab.server.request("DELETE", f"{lab.config.mount}/roles/{ROLE}")
    with pytest.raises(IssuerRefused, match=f"Vault has no role {ROLE} at {lab.config.mount}"):
        await lab.issuer.intend(LOGIN)
    assert lab.server.leftovers() == []


async def test_a_policy_that_is_not_there_is_named_before_anything_is_read(lab: DatabaseLab) -> None:
    name = policy_name(lab.config.name, ROLE)
    lab.server.request("DELETE", f"sys/policies/acl/{name}")
    with pytest.raises(IssuerRefused, match=f"policy {name} does not exist; run `stepgrant vault setup`"):
        await lab.issuer.intend(LOGIN)
    assert lab.server.leftovers() == []


async def test_a_permission_that_is_taken_away_half_way_leaves_nothing(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    name = policy_name(lab.config.name, ROLE)
    lab.server.request("PUT", f"sys/policies/acl/{name}", {"policy": 'path "x" { capabilities = ["read"] }'})
    with pytest.raises(IssuerRefused, match=f"lacks 'read' on {lab.config.mount}/creds/{ROLE}"):
        await lab.issuer.mint(LOGIN, handle)
    assert await revoke(lab, handle), "Vault refused to read: nothing was made"
    assert (lab.logins(), lab.server.leftovers()) == ([], [])


async def test_a_role_that_postgresql_refuses_gives_no_login_and_tells_no_password(
    lab: DatabaseLab, logs: list[Any]
) -> None:
    await made(lab)
    lab.role(creation=["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD {{password}} VALID UNTIL '{{expiration}}'"])
    handle = await lab.issuer.intend(LOGIN)
    with pytest.raises(IssuerUnavailable, match="Vault failed at GET") as caught:
        await lab.issuer.mint(LOGIN, handle)
    assert type(caught.value) is IssuerUnavailable
    (told,) = [line for line in logs if line["event"] == "vault_issuer_failed"]
    assert "syntax error at or near … (SQLSTATE" in told["said"]
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_a_dead_token_of_a_grant_gets_nothing_and_ends_no_session_of_the_broker(lab: DatabaseLab) -> None:
    handle = await lab.issuer.intend(LOGIN)
    lab.server.request("POST", "auth/token/revoke-accessor", {"accessor": accessor_of(handle or "")})
    with pytest.raises(IssuerRefused, match="the token is dead, or its policy lacks"):
        await lab.issuer.mint(LOGIN, handle)
    assert lab.vault.login.logins == 1
    assert await revoke(lab, handle)


async def test_what_vault_says_of_tokens_is_in_no_message_and_no_log(lab: DatabaseLab, logs: list[Any]) -> None:
    handle, minted = await made(lab)
    own = await lab.vault.login.token()
    with pytest.raises(IssuerRefused) as caught:
        await lab.issuer.intend(replace(LOGIN, params={"role": "admin"}))
    assert await revoke(lab, handle, minted.lease)
    said = f"{logs} {caught.value!r} {minted!r} {own!r} {lab.issuer._tokens.__dict__} {VaultToken('hvs.x')!r}"
    for secret in (own.reveal(), minted.fields["password"], "hvs."):
        assert secret not in said
