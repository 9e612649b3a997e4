"""The broker's session: one login at a time, renewed in time, again when lost, and nobody waits for a storm."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fakes.lying_vault import ROOT, SECRET_ID, Answer, Lie, LyingVault, error, secret
from stepgrant_broker.vault import login as logins
from stepgrant_broker.vault.client import NO_TOKEN, Vault
from stepgrant_broker.vault.faults import VaultBad, VaultDenied, VaultFault, VaultUnavailable
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import AppRole, Jwt, Method, TokenFile
from stepgrant_broker.vault.wire import Where, Wire

LOGIN = "auth/approle/login"
SELF = "auth/token/lookup-self"
RENEW = "auth/token/renew-self"


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


def private(folder: Path, text: str, name: str = "secret") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def approle(folder: Path, secret_id: str = SECRET_ID) -> AppRole:
    return AppRole("approle", "role", private(folder, secret_id))


@asynccontextmanager
async def vault_of(fake: LyingVault, method: Method, *, start: bool = True) -> AsyncIterator[Vault]:
    wire = Wire(Where(fake.addr))
    vault = Vault(wire, Login(wire, method))
    if start:
        vault.start()
    try:
        yield vault
    finally:
        await vault.close()


async def until(done: object, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def count(fake: LyingVault, path: str) -> int:
    return [one.path for one in fake.asked].count(path)


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


# --- keeping a session -----------------------------------------------------------------------------------------------


async def test_it_is_renewed_at_two_thirds_of_its_life(fake: LyingVault, tmp_path: Path) -> None:
    fake.life_s = 3
    async with vault_of(fake, approle(tmp_path)) as vault:
        begun = time.monotonic()
        await until(lambda: count(fake, RENEW) == 1)
        assert 1.8 < time.monotonic() - begun < 3
        await until(lambda: count(fake, RENEW) == 2)
        assert vault.healthy
        assert count(fake, LOGIN) == 1


@pytest.mark.parametrize("how", ["not renewable", "refused", "not longer"])
async def test_what_cannot_be_renewed_is_followed_by_a_login_while_it_still_serves(
    fake: LyingVault, tmp_path: Path, how: str
) -> None:
    fake.life_s = 2
    match how:
        case "not renewable":
            fake.lies[LOGIN] = Lie(
                change=lambda one: Answer(200, {**one.body, "auth": {**one.body["auth"], "renewable": False}})
            )
        case "refused":
            fake.lies[RENEW] = Lie(instead=error(400, "lease is not renewable"))
        case _:
            fake.lies[RENEW] = Lie(
                change=lambda one: Answer(200, {**one.body, "auth": {**one.body["auth"], "lease_duration": 1}})
            )
    async with vault_of(fake, approle(tmp_path)) as vault:
        await until(lambda: vault.healthy)
        begun = time.monotonic()
        while count(fake, LOGIN) < 2:
            assert vault.healthy
            assert time.monotonic() - begun < 4
            await asyncio.sleep(0.01)


async def test_a_session_that_vault_forgot_is_made_again_and_the_call_repeated(
    fake: LyingVault, tmp_path: Path
) -> None:
    async with vault_of(fake, approle(tmp_path)) as vault:
        await vault.request("GET", SELF)
        fake.sessions.clear()
        vault.login._began_at = float("-inf")
        assert (await vault.request("GET", "database/roles/orders-rw"))["data"]["db_name"] == "app"
        assert vault.login.logins == 2


async def test_a_missing_capability_ends_no_session(fake: LyingVault, tmp_path: Path) -> None:
    fake.lies["sys/x"] = Lie(instead=error(403, "permission denied"))
    async with vault_of(fake, approle(tmp_path)) as vault:
        await vault.request("GET", SELF)
        vault.login._began_at = float("-inf")
        for _ in range(3):
            with pytest.raises(VaultDenied, match="'read' on sys/x"):
                await vault.request("GET", "sys/x")
        assert (vault.login.logins, count(fake, "sys/x")) == (1, 3)


async def test_a_session_that_is_denied_everything_makes_no_storm_of_logins(fake: LyingVault, tmp_path: Path) -> None:
    for path in ("sys/x", SELF):
        fake.lies[path] = Lie(instead=error(403, "permission denied"))
    async with vault_of(fake, approle(tmp_path)) as vault:
        await vault.login.token()
        begun = time.monotonic()
        for _ in range(15):
            asked = [vault.request("GET", "sys/x") for _ in range(3)]
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in ended} == {VaultDenied}
        assert vault.login.logins <= 2 + (time.monotonic() - begun) / logins.BETWEEN_S


async def test_many_calls_without_a_session_make_one_login(fake: LyingVault, tmp_path: Path) -> None:
    async with vault_of(fake, approle(tmp_path), start=False) as vault:
        await asyncio.gather(*(vault.request("GET", "database/roles/orders-rw") for _ in range(30)))
    assert count(fake, LOGIN) == 1


async def test_after_a_failed_login_nobody_waits(fake: LyingVault, tmp_path: Path) -> None:
    fake.lies[LOGIN] = Lie(instead=error(400, "invalid role or secret ID"))
    async with vault_of(fake, approle(tmp_path)) as vault:
        await until(lambda: count(fake, LOGIN) >= 3)
        before = count(fake, LOGIN)
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises(VaultBad, match="role id or secret id is wrong"):
                await vault.request("GET", SELF)
        assert time.monotonic() - begun < 1
        assert count(fake, LOGIN) <= before + 2
        assert not vault.healthy


async def test_a_call_waits_for_a_login_no_longer_than_its_own_deadline(fake: LyingVault, tmp_path: Path) -> None:
    hold = threading.Event()
    fake.lies[LOGIN] = Lie(hold=hold)
    async with vault_of(fake, approle(tmp_path)) as vault:
        begun = time.monotonic()
        with pytest.raises(VaultUnavailable, match=r"took longer than 0\.2 s"):
            await vault.request("GET", SELF, deadline_s=0.2)
        assert time.monotonic() - begun < 1
        hold.set()
        await vault.request("GET", SELF)


async def test_a_live_session_serves_while_vault_cannot_renew_it(fake: LyingVault, tmp_path: Path) -> None:
    fake.life_s = 4
    fake.lies[RENEW] = Lie(instead=error(500))
    async with vault_of(fake, approle(tmp_path)) as vault:
        await until(lambda: count(fake, RENEW) >= 2)
        begun = time.monotonic()
        await vault.request("GET", SELF)
        assert time.monotonic() - begun < 0.5
        fake.lies.clear()
        await until(lambda: vault.login._failed is None)
        assert vault.login.logins == 1


async def test_it_is_back_soon_after_vault_is(tmp_path: Path) -> None:
    with LyingVault() as fake:
        fake.lies[LOGIN] = Lie(instead=error(503, "Vault is sealed"))
        async with vault_of(fake, approle(tmp_path)) as vault:
            await until(lambda: count(fake, LOGIN) >= 5, 10)
            fake.lies.clear()
            await until(lambda: vault.healthy, 2.0)


async def test_no_token_means_none(fake: LyingVault, tmp_path: Path) -> None:
    async with vault_of(fake, approle(tmp_path), start=False) as vault:
        with pytest.raises(VaultDenied):
            await vault.request("GET", SELF, token=NO_TOKEN)
    assert "x-vault-token" not in fake.asked[0].headers
    assert count(fake, LOGIN) == 0


async def test_a_bug_in_one_round_does_not_end_the_keeping(fake: LyingVault, tmp_path: Path) -> None:
    class Broken(AppRole):
        broken = True

        def changed(self) -> bool:
            if self.broken:
                self.broken = False
                raise ZeroDivisionError
            return False

    with capture_logs() as logs:
        async with vault_of(fake, Broken("approle", "role", private(tmp_path, SECRET_ID))) as vault:
            await until(lambda: vault.healthy)
    assert {"event": "vault_login_broke", "kind": "ZeroDivisionError", "log_level": "error"} in logs
