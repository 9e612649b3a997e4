"""The issuer `vault-database`: what it asks of Vault, and which orders, roles and tokens it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from changing import replace
from conformance.issuer.adapters import LOGIN
from fakes.lying_logins import CREATE, CREDS, ROLE, changed, mint
from fakes.lying_vault import Lie, LyingVault
from stepgrant_broker.domain.errors import IssuerRefused
from stepgrant_broker.issuers import grant_tokens, vault_database
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer

# --- what is asked of Vault -------------------------------------------------------------------------------------------


async def test_the_token_of_a_grant_can_do_one_thing_and_says_for_which_grant(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    handle = await issuer.intend(LOGIN)
    (asked,) = [one for one in fake.asked if one.path == CREATE]
    assert asked.body == {
        "policies": ["stepgrant.orders-db.orders-rw"],
        "no_default_policy": True,
        "renewable": False,
        "ttl": "70s",
        "explicit_max_ttl": "70s",
        "type": "service",
        "display_name": "stepgrant",
        "num_uses": 0,
        "meta": {"stepgrant": "acme", "run": "run_01", "step": "charge", "jti": "grn_01"},
    }
    assert fake.config.vault_policies()["stepgrant.orders-db.orders-rw"].startswith(f'path "{CREDS}" {{')
    assert handle is not None
    assert grant_tokens.accessor_of(handle) in fake.tokens.values()


async def test_a_login_is_read_with_the_grants_own_token(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    minted = await mint(issuer)
    (asked,) = [one for one in fake.asked if one.path == CREDS]
    assert asked.headers["x-vault-token"] in fake.tokens
    assert (minted.kind, minted.hosts, minted.expires_at) == ("login", ("127.0.0.1:5432",), LOGIN.expires_at)
    assert minted.fields.keys() == {"username", "password", "host", "port", "database"}


async def test_a_login_that_ends_before_its_grant_says_so(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    fake.role_ttl_s = 20
    assert (await mint(issuer)).expires_at == LOGIN.issued_at + 20_000


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [{}, {"role": "admin"}, {"role": ""}, {"role": 7}, {"role": None}, {"role": ["orders-rw"]}]
)
async def test_policy_names_one_of_the_roles_that_the_file_allows(
    fake: LyingVault, issuer: VaultDatabaseIssuer, params: dict[str, Any]
) -> None:
    with pytest.raises(IssuerRefused, match=r"grant\.params\.role: orders-rw, orders-ro"):
        await issuer.intend(replace(LOGIN, params=params))
    assert fake.paths() == []


async def test_other_parameters_are_refused(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    with pytest.raises(IssuerRefused, match="no other parameters"):
        await issuer.intend(replace(LOGIN, params={"role": "orders-rw", "ttl": 3600}))
    assert fake.paths() == []


# --- roles and token roles that are not as they must be --------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"default_ttl": 3600, "max_ttl": 7200}, "live 3600 s: set its default_ttl and max_ttl to at most 60s"),
        ({"default_ttl": 0, "max_ttl": 0}, "live the mount's default"),
        ({"creation_statements": ['CREATE ROLE "{{name}}"']}, "add VALID UNTIL '{{expiration}}' to its creation"),
        ({"creation_statements": []}, "add VALID UNTIL"),
        ({"revocation_statements": ['DROP ROLE "{{name}}"']}, "put SELECT pg_terminate_backend"),
        ({"revocation_statements": None}, "put SELECT pg_terminate_backend"),
    ],
)
async def test_a_role_whose_logins_cannot_be_ended_gets_no_token(
    fake: LyingVault, issuer: VaultDatabaseIssuer, members: dict[str, Any], said: str
) -> None:
    fake.lies[ROLE] = Lie(change=changed("data", **members))
    with pytest.raises(IssuerRefused) as caught:
        await issuer.intend(LOGIN)
    assert said in caught.value.detail
    assert fake.tokens == {}
    del fake.lies[ROLE]
    await mint(issuer)


async def test_a_role_longer_than_this_grant_gets_no_token(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    short = replace(LOGIN, expires_at=LOGIN.issued_at + 30_000)
    with pytest.raises(IssuerRefused, match="live 60 s, the grant is for 30 s: set its default_ttl to at most 30s"):
        await issuer.intend(short)
    assert fake.tokens == {}


async def test_a_role_is_looked_at_once_a_minute(
    fake: LyingVault, issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await mint(issuer)
    assert fake.paths().count(ROLE) == 1
    monkeypatch.setattr(vault_database, "ROLE_KEPT_S", -1.0)
    issuer._roles.clear()
    for _ in range(2):
        await mint(issuer)
    assert fake.paths().count(ROLE) == 3


@pytest.mark.parametrize(
    ("where", "members", "said"),
    [
        ("auth", {"policies": ["default", "stepgrant.orders-db.orders-rw"]}, "other policies than"),
        ("auth", {"policies": ["root"]}, "other policies than"),
        ("auth", {"orphan": False}, "no orphans"),
        ("auth", {"renewable": True}, "renewable"),
        ("auth", {"lease_duration": 3600}, "live longer than the 70 s"),
        ("auth", {"lease_duration": 0}, "live longer than the 70 s"),
        ("auth", {"num_uses": 1}, "use limit"),
        ("", {"warnings": ['Policy "stepgrant.orders-db.orders-rw" does not exist']}, "does not exist"),
    ],
)
async def test_a_token_that_is_not_as_asked_is_revoked_and_never_used(
    fake: LyingVault, issuer: VaultDatabaseIssuer, where: str, members: dict[str, Any], said: str
) -> None:
    fake.lies[CREATE] = Lie(change=changed(where, **members))
    with pytest.raises(IssuerRefused, match=said) as caught:
        await issuer.intend(LOGIN)
    assert "stepgrant vault setup" in caught.value.detail
    assert (fake.tokens, fake.leases) == ({}, {})
    assert CREDS not in fake.paths()


@pytest.mark.parametrize("auth", [None, {}, [], {"client_token": "hvb.batch", "accessor": ""}])
async def test_a_token_without_an_accessor_is_refused(
    fake: LyingVault, issuer: VaultDatabaseIssuer, auth: object
) -> None:
    fake.lies[CREATE] = Lie(change=changed("", auth=auth))
    with pytest.raises(IssuerRefused, match="must be of type service"):
        await issuer.intend(LOGIN)
    assert CREDS not in fake.paths()
