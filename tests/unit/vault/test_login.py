"""The ways to log in, on a Vault that lies: what is wrong is named, and no secret is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.lying_vault import ROOT, SECRET_ID, Answer, Lie, LyingVault, secret
from fakes.vault_sessions import LOGIN, SELF, approle, count, private, until, vault_of
from heard import capture_logs
from stepgrant_broker.vault.faults import VaultBad, VaultDenied, VaultFault
from stepgrant_broker.vault.methods import AppRole, Jwt, TokenFile


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


# --- methods ---------------------------------------------------------------------------------------------------------


async def test_approle_with_a_plain_secret_id(fake: LyingVault, tmp_path: Path) -> None:
    async with vault_of(fake, approle(tmp_path)) as vault:
        assert (await vault.request("GET", SELF))["data"]["ttl"] == 3600
        assert vault.healthy
    assert fake.sessions == {ROOT}, "a login of ours is given back"


async def test_a_wrapped_secret_id_is_opened_once_and_remembered(fake: LyingVault, tmp_path: Path) -> None:
    wrapping = "hvs.CAESIwrappedwrappedwrapped"
    fake.wrapped[wrapping] = SECRET_ID
    async with vault_of(fake, approle(tmp_path, wrapping)) as vault:
        await vault.request("GET", SELF)
        fake.sessions.clear()
        vault.login._began_at = float("-inf")
        await vault.request("GET", SELF)
        assert (count(fake, "sys/wrapping/unwrap"), count(fake, LOGIN)) == (1, 2)


@pytest.mark.parametrize("broken", ["used", "made elsewhere", "holds something else"])
async def test_a_wrapped_secret_id_that_somebody_touched_is_an_alarm(
    fake: LyingVault, tmp_path: Path, broken: str
) -> None:
    wrapping = "hvs.CAESIwrappedwrappedwrapped"
    fake.wrapped[wrapping] = SECRET_ID
    match broken:
        case "used":
            fake.wrapped.clear()
            said = "treat it as stolen"
        case "made elsewhere":
            fake.creation_path = "cubbyhole/x"
            said = "treat it as stolen"
        case _:
            fake.lies["sys/wrapping/unwrap"] = Lie(instead=Answer(200, secret(data={"password": "x"})))
            said = "is no secret id"
    async with vault_of(fake, approle(tmp_path, wrapping), start=False) as vault:
        with pytest.raises(VaultFault, match=said), capture_logs() as logs:
            await vault.request("GET", SELF)
        assert count(fake, LOGIN) == 0
        assert wrapping not in str(logs)
        if broken != "holds something else":
            assert any(line["event"] == "wrapped_secret_id_refused" for line in logs)


async def test_a_wrong_secret_id_is_named_with_its_file(fake: LyingVault, tmp_path: Path) -> None:
    async with vault_of(fake, approle(tmp_path, "wrong"), start=False) as vault:
        with pytest.raises(
            VaultBad, match=r"role id or secret id is wrong, used up or expired; put a new one into .*sec"
        ):
            await vault.request("GET", SELF)


@pytest.mark.parametrize("mount", ["jwt", "kubernetes"])
async def test_jwt_and_kubernetes_send_the_token_of_now(fake: LyingVault, tmp_path: Path, mount: str) -> None:
    token = tmp_path / "jwt"
    token.write_text("an.old.jwt\n")
    token.chmod(0o644)
    async with vault_of(fake, Jwt(mount, "broker", token), start=False) as vault:
        with pytest.raises(VaultBad, match=f"refused the login at auth/{mount} with role broker"):
            await vault.request("GET", SELF)
        token.write_text("a.fresh.jwt\n")
        vault.login._next_at = 0.0
        await vault.request("GET", SELF)
    assert [one.body for one in fake.asked if one.path == f"auth/{mount}/login"][1] == {
        "role": "broker",
        "jwt": "a.fresh.jwt",
    }


async def test_a_token_of_a_file_is_taken_again_when_the_file_changes(fake: LyingVault, tmp_path: Path) -> None:
    path = private(tmp_path, ROOT)
    fake.sessions.add("hvs.the-next-token-of-the-agent")
    async with vault_of(fake, TokenFile(path)) as vault:
        await vault.request("GET", SELF)
        fake.sessions.discard(ROOT)
        other = private(tmp_path, "hvs.the-next-token-of-the-agent", "next")
        other.replace(path)
        await until(lambda: vault.login.logins == 2)
        await vault.request("GET", SELF)
    assert fake.sessions == {"hvs.the-next-token-of-the-agent"}, "the agent's token is not ours to revoke"


async def test_a_dead_token_of_a_file_is_named(fake: LyingVault, tmp_path: Path) -> None:
    async with vault_of(fake, TokenFile(private(tmp_path, "hvs.dead")), start=False) as vault:
        with pytest.raises(VaultDenied, match="does not accept the token in"):
            await vault.request("GET", SELF)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (None, 0o600, "cannot be read: No such file"),
        ("", 0o600, "must hold one line"),
        ("a\nb", 0o600, "must hold one line"),
        ("\u00e4", 0o600, "must hold one line"),
        ("x" * 20_000, 0o600, "must hold one line"),
        (SECRET_ID, 0o604, "can be read or written by everybody; say: chmod o-rwx"),
        (SECRET_ID, 0o602, "can be read or written by everybody"),
    ],
)
async def test_a_file_that_is_no_secret_is_named(
    fake: LyingVault, tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    path = tmp_path / "secret"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    for method in (AppRole("approle", "role", path), TokenFile(path)):
        async with vault_of(fake, method, start=False) as vault:
            with pytest.raises(VaultBad, match=said) as caught:
                await vault.request("GET", SELF)
            assert SECRET_ID not in str(caught.value)
    assert fake.asked == []


@pytest.mark.parametrize("auth", [None, {}, {"client_token": ""}, {"client_token": "t", "lease_duration": -1}])
async def test_a_login_without_a_token_is_none(fake: LyingVault, tmp_path: Path, auth: object) -> None:
    fake.lies[LOGIN] = Lie(change=lambda answer: Answer(200, {**answer.body, "auth": auth}))
    async with vault_of(fake, approle(tmp_path), start=False) as vault:
        with pytest.raises(VaultBad):
            await vault.request("GET", SELF)
        assert not vault.healthy
