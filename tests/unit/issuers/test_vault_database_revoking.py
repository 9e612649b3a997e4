"""The issuer `vault-database` takes back: only what is provably gone is called dead, whatever Vault does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conformance.issuer.adapters import LOGIN
from fakes.lying_logins import CREDS, revoke, until_revoked
from fakes.lying_vault import Answer, Lie, LyingVault, error, secret
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.issuers import grant_tokens, vault_database
from stepgrant_broker.issuers.vault_database import VaultDatabaseIssuer


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
    over = LOGIN.issued_at + 10_000 + 30_000 + 60_000
    for now in (LOGIN.issued_at, over):
        assert not await revoke(issuer, handle, now=now)
    assert await revoke(issuer, handle, now=over + 1)
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
        assert await revoke(second, handle, now=LOGIN.issued_at + 200_000)


async def test_a_handle_that_is_not_ours_is_never_dead_by_time(issuer: VaultDatabaseIssuer) -> None:
    for handle in ("an-accessor-alone", "accessor.", ".17", "accessor.soon"):
        assert not await revoke(issuer, handle, now=LOGIN.issued_at + 10**12)


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
    with pytest.raises(IssuerUnavailable) as caught:
        await revoke(issuer, handle, minted.lease, now=LOGIN.issued_at + 10**9)
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
