"""The issuer `vault-database` against a Vault that lies, hangs or breaks: nothing is released, all is taken back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from conformance.issuer.adapters import LOGIN
from fakes.lying_vault import Answer, Lie, LyingVault, error, secret
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.issuers import grant_tokens, vault_database
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer

CREATE = "auth/token/create/stepgrant"
CREDS = "database/creds/orders-rw"
ROLE = "database/roles/orders-rw"


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


@pytest.fixture
async def issuer(fake: LyingVault, tmp_path: Path) -> AsyncIterator[VaultDatabaseIssuer]:
    async with fake.issuer(tmp_path) as made:
        yield made


async def mint(issuer: VaultDatabaseIssuer, order: GrantOrder = LOGIN) -> Minted:
    minted = await issuer.mint(order, await issuer.intend(order))
    issuer.check(order, minted)
    return minted


async def revoke(issuer: VaultDatabaseIssuer, handle: str | None, lease: str | None = None) -> bool:
    return await issuer.revoke(tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=lease)


async def until_revoked(issuer: VaultDatabaseIssuer, handle: str | None) -> None:
    for _ in range(200):
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


async def test_a_mint_that_answers_too_late_is_taken_back_as_soon_as_it_is_known(
    fake: LyingVault, issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that revoking the token alone loses: the login is registered after the token's leases were listed."""
    monkeypatch.setattr(vault_database, "MINT_DEADLINE_MS", 200)
    keep = threading.Event()
    fake.lies[CREDS] = Lie(keep=keep)
    handle = await issuer.intend(LOGIN)
    with pytest.raises(IssuerUnavailable, match="did not answer GET database/creds/orders-rw"):
        await issuer.mint(LOGIN, handle)
    assert len(fake.leases) == 1
    orphaned = dict(fake.leases)

    assert not await revoke(issuer, handle), "nobody knows yet what the thread gets"
    fake.leases.update(orphaned)
    keep.set()
    await until_revoked(issuer, handle)
    assert (fake.leases, fake.tokens) == ({}, {})


async def test_a_mint_that_vault_refuses_too_late_has_made_nothing(
    fake: LyingVault, issuer: VaultDatabaseIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_database, "MINT_DEADLINE_MS", 200)
    hold = threading.Event()
    fake.lies[CREDS] = Lie(hold=hold)
    handle = await issuer.intend(LOGIN)
    with pytest.raises(IssuerUnavailable):
        await issuer.mint(LOGIN, handle)
    assert not await revoke(issuer, handle)
    hold.set()
    await until_revoked(issuer, handle)
    assert fake.leases == {}


async def test_a_lost_answer_is_dead_only_when_its_longest_life_is_over(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    fake.lies[CREDS] = Lie(drop=True)
    handle = await issuer.intend(LOGIN)
    with pytest.raises(IssuerUnavailable, match="the connection broke"):
        await issuer.mint(LOGIN, handle)
    # Mint deadline, what Vault may take over it, and the longest life that the file allows.
    for _ in range(2):
        assert not await revoke(issuer, handle)
        fake.clock.ms = LOGIN.issued_at + 10_000 + 30_000 + 60_000
    fake.clock.tick(1)
    assert await revoke(issuer, handle)
    assert fake.tokens == {}


async def test_another_broker_knows_only_the_time(
    fake: LyingVault, issuer: VaultDatabaseIssuer, tmp_path: Path
) -> None:
    """After a crash between intent and lease."""
    handle = await issuer.intend(LOGIN)
    folder = tmp_path / "second"
    folder.mkdir()
    async with fake.issuer(folder) as second:
        with pytest.raises(IssuerUnavailable, match="the token of this grant is gone"):
            await second.mint(LOGIN, handle)
        assert not await revoke(second, handle)
        assert fake.tokens == {}
        fake.clock.tick(200_000)
        assert await revoke(second, handle)


async def test_a_handle_that_is_not_ours_is_never_dead_by_time(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    fake.clock.tick(10**12)
    for handle in ("an-accessor-alone", "accessor.", ".17", "accessor.soon"):
        assert not await revoke(issuer, handle)


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


# --- taking back ----------------------------------------------------------------------------------------------------


async def test_the_login_goes_first_and_at_once_then_its_token(fake: LyingVault, issuer: VaultDatabaseIssuer) -> None:
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    fake.asked.clear()
    assert await revoke(issuer, handle, minted.lease)
    assert [(one.path, one.body) for one in fake.asked] == [
        ("sys/leases/revoke", {"lease_id": minted.lease, "sync": True}),
        ("auth/token/revoke-accessor", {"accessor": grant_tokens.accessor_of(handle or "")}),
    ]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400, "failed to revoke entry: ERROR: role is in use"), IssuerRefused),
        (error(403, "permission denied"), IssuerRefused),
        (error(500, "no"), IssuerUnavailable),
        (error(503, "Vault is sealed"), IssuerUnavailable),
    ],
)
async def test_a_login_that_vault_cannot_drop_is_not_called_dead(
    fake: LyingVault, issuer: VaultDatabaseIssuer, answer: Answer, kind: type[Exception]
) -> None:
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    fake.lies["sys/leases/revoke"] = Lie(instead=answer)
    fake.lies["sys/leases/lookup"] = Lie(instead=Answer(200, secret(data={"id": minted.lease})))
    fake.clock.tick(10**9)
    with pytest.raises(IssuerUnavailable) as caught:
        await revoke(issuer, handle, minted.lease)
    assert type(caught.value) is kind
    assert fake.tokens == {}, "without its token Vault goes on trying by itself"


async def test_a_login_that_somebody_else_dropped_between_is_dead(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    """The token's end and our revocation run into each other: the second DROP ROLE fails, and the lease is gone."""
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    fake.lies["sys/leases/revoke"] = Lie(change=lambda _: error(400, "failed: role does not exist"))
    assert await revoke(issuer, handle, minted.lease)


async def test_a_token_that_somebody_else_revoked_at_the_same_moment_is_dead(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    fake.lies["auth/token/revoke-accessor"] = Lie(instead=error(400, "token not found"))
    assert await revoke(issuer, handle, minted.lease)
    fake.lies["auth/token/revoke-accessor"] = Lie(instead=error(400, "something else"))
    with pytest.raises(IssuerRefused):
        await revoke(issuer, handle, minted.lease)


async def test_a_token_that_vault_does_not_revoke_is_not_called_dead(
    fake: LyingVault, issuer: VaultDatabaseIssuer
) -> None:
    handle = await issuer.intend(LOGIN)
    minted = await issuer.mint(LOGIN, handle)
    fake.lies["auth/token/revoke-accessor"] = Lie(instead=error(403, "permission denied"))
    with pytest.raises(IssuerRefused, match="lacks 'update' on auth/token/revoke-accessor"):
        await revoke(issuer, handle, minted.lease)
    assert fake.leases == {}
