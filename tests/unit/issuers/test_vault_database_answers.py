"""The issuer `vault-database` against a Vault that lies or breaks while it mints: nothing is released."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conformance.issuer.adapters import LOGIN
from fakes.lying_logins import CREATE, CREDS, ROLE, changed, mint, revoke
from fakes.lying_vault import Answer, Lie, LyingVault, error, secret
from heard import capture_logs
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import Minted
from stepgrant_broker.issuers import grant_tokens
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer

# --- answers that are not what was ordered ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "members", "said"),
    [
        ("", {"lease_duration": 3600}, "would keep this login 3600 s, the grant is for 60 s: set default_ttl"),
        ("", {"lease_duration": 63}, "would keep this login 63 s"),
        ("", {"lease_duration": 0}, "would keep this login 0 s"),
        ("", {"lease_duration": -1}, "would keep this login"),
        ("", {"lease_duration": True}, "would keep this login"),
        ("", {"lease_duration": "60"}, "would keep this login"),
        ("", {"lease_id": "database/creds/admin/x"}, "a lease of something else than role orders-rw"),
        ("", {"lease_id": "database/creds/orders-rw"}, "a lease of something else"),
        ("", {"lease_id": "other/creds/orders-rw/x"}, "a lease of something else"),
        ("", {"lease_id": "database/creds/orders-rw/x/y"}, "a lease of something else"),
        ("data", {"password": ""}, "a login is a username"),
    ],
)
async def test_a_wider_or_longer_login_is_refused_and_can_be_taken_back(
    fake: LyingVault, issuer: VaultDatabaseIssuer, where: str, members: dict[str, Any], said: str
) -> None:
    fake.lies[CREDS] = Lie(change=changed(where, **members))
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    with pytest.raises(IssuerRefused, match=said):
        issuer.check(LOGIN, minted)
    assert minted.lease is not None
    assert await revoke(issuer, handle, minted.lease)
    assert (fake.tokens, fake.leases) == ({}, {})


async def test_a_lease_a_little_longer_than_its_grant_is_the_lateness_of_vault(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    fake.lies[CREDS] = Lie(change=changed("", lease_duration=62))
    assert (await mint(issuer)).expires_at == LOGIN.expires_at


@pytest.mark.parametrize(
    "body",
    [
        secret(data={"username": "u", "password": "p"}, lease_duration=60),
        secret(lease_id="database/creds/orders-rw/x", lease_duration=60),
        secret(data={"username": "u"}, lease_id="database/creds/orders-rw/x", lease_duration=60),
        secret(data={"username": 1, "password": "p"}, lease_id="database/creds/orders-rw/x", lease_duration=60),
        secret(data={"username": "u", "password": "p"}, lease_id=7, lease_duration=60),
        {},
    ],
)
async def test_an_answer_that_is_no_login_with_a_lease_is_refused(
    fake: LyingVault, issuer: VaultDatabaseIssuer, body: dict[str, Any]
) -> None:
    fake.lies[CREDS] = Lie(instead=Answer(200, body))
    handle = await issuer.intend(LOGIN)
    with pytest.raises(IssuerRefused):
        await issuer.mint(LOGIN, handle)


async def test_a_plain_credential_of_somebody_else_does_not_pass(issuer: VaultDatabaseIssuer) -> None:
    fields = {"username": "u", "password": "p", **issuer._config.fixed_fields()}
    plain = Minted("login", fields, LOGIN.expires_at, ("127.0.0.1:5432",), "database/creds/orders-rw/x")
    with pytest.raises(IssuerRefused, match="comes with its lease"):
        issuer.check(LOGIN, plain)


# --- what fails on the way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "answer", "kind", "said"),
    [
        (ROLE, error(403, "permission denied"), IssuerRefused, "lacks 'read' on database/roles/orders-rw"),
        (ROLE, error(404), IssuerRefused, "has no role orders-rw at database: make database/roles/orders-rw"),
        (CREATE, error(403, "permission denied"), IssuerRefused, "lacks 'update' on auth/token/create/stepgrant"),
        (CREATE, error(400, "unknown role stepgrant"), IssuerRefused, "nothing at auth/token/create/stepgrant"),
        (CREATE, error(503, "Vault is sealed"), IssuerUnavailable, "sealed or not initialised; unseal it"),
        (CREDS, error(403, "permission denied"), IssuerRefused, "lacks 'read' on database/creds/orders-rw"),
        (CREDS, error(400, "unknown role: orders-rw"), IssuerRefused, "nothing at database/creds/orders-rw"),
        (CREDS, error(500, "pq: password of app is hunter2"), IssuerUnavailable, "Vault failed at GET"),
        (CREDS, error(503, "Vault is sealed"), IssuerUnavailable, "unseal it"),
        (CREDS, error(429, "quota"), IssuerUnavailable, "does not serve"),
    ],
)
async def test_a_refusal_on_the_way_is_named_and_leaves_nothing(
    fake: LyingVault, issuer: VaultDatabaseIssuer, path: str, answer: Answer, kind: type[Exception], said: str
) -> None:
    fake.lies[path] = Lie(instead=answer)
    handle = None
    with pytest.raises(IssuerUnavailable) as caught, capture_logs() as logs:  # noqa: PT012 - both calls belong to it
        handle = await issuer.intend(LOGIN)
        await issuer.mint(LOGIN, handle)
    assert type(caught.value) is kind
    assert said in caught.value.detail
    assert "hunter2" not in caught.value.detail
    assert all(secret not in f"{caught.value.detail}{logs}" for secret in fake.tokens)
    if handle is not None:
        await revoke(issuer, handle)
    assert fake.tokens == {}


async def test_a_token_waits_in_memory_for_the_mint_deadline_only(
    fake: LyingVault, issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_tokens, "MINT_DEADLINE_MS", 50)
    handle = await issuer.intend(LOGIN)
    await asyncio.sleep(0.2)
    assert issuer._tokens._held == {}
    with pytest.raises(IssuerUnavailable, match="is gone"):
        await issuer.mint(LOGIN, handle)
    assert CREDS not in fake.paths()
    assert await revoke(issuer, handle)


async def test_tokens_in_memory_are_bounded(
    fake: LyingVault, issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_tokens, "HELD_MAX", 2)
    handles = [await issuer.intend(LOGIN) for _ in range(2)]
    with pytest.raises(IssuerUnavailable, match="2 grants wait"):
        await issuer.intend(LOGIN)
    assert len(fake.tokens) == 2
    await revoke(issuer, handles[0])
    await issuer.intend(LOGIN)


async def test_what_is_remembered_is_bounded(issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_tokens, "KNOWN_MAX", 3)
    for number in range(5):
        issuer._tokens.saw(f"a{number}.1", "lease")
    assert list(issuer._tokens._known) == ["a2.1", "a3.1", "a4.1"]
