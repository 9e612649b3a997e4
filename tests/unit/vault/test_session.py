"""The broker's session: one login at a time, renewed in time, again when lost, and nobody waits for a storm."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.lying_vault import SECRET_ID, Answer, Lie, LyingVault, error
from fakes.vault_sessions import LOGIN, RENEW, SELF, approle, count, private, until, vault_of
from heard import capture_logs
from lateness import lateness
from stepgrant_broker.vault import login as logins
from stepgrant_broker.vault.client import NO_TOKEN
from stepgrant_broker.vault.faults import VaultBad, VaultDenied, VaultUnavailable
from stepgrant_broker.vault.methods import AppRole
from stepgrant_broker.vault.wire import DEADLINE_S

LIFE_S = 3_600
"""No session of a test ends by itself, however slow the machine is."""
PATIENCE_S = 40.0


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


# --- keeping a session -----------------------------------------------------------------------------------------------


async def test_it_is_renewed_at_two_thirds_of_its_life(fake: LyingVault, tmp_path: Path) -> None:
    fake.life_s = LIFE_S
    async with vault_of(fake, approle(tmp_path)) as vault:
        await until(lambda: vault.healthy)
        for renewals in (1, 2):
            vault.login._renew_at = 0.0  # that time has come
            await until(lambda: vault.login._renew_at > 0.0)
            assert count(fake, RENEW) == renewals
            assert vault.login._renew_at - vault.login._began_at == pytest.approx(LIFE_S * 2 / 3)
        await asyncio.sleep(1.2 * logins.LOOK_S)  # and no sooner
        assert vault.healthy
        assert (count(fake, LOGIN), count(fake, RENEW)) == (1, 2)


@pytest.mark.parametrize("how", ["not renewable", "refused", "not longer"])
async def test_what_cannot_be_renewed_is_followed_by_a_login_while_it_still_serves(
    fake: LyingVault, tmp_path: Path, how: str
) -> None:
    fake.life_s = LIFE_S
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
        vault.login._renew_at = 0.0  # two thirds of its life are over
        begun = time.monotonic()
        while count(fake, LOGIN) < 2:
            assert vault.healthy
            assert time.monotonic() - begun < PATIENCE_S
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
            asked = [vault.request("GET", "sys/x", deadline_s=PATIENCE_S) for _ in range(3)]
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
        await until(lambda: vault.login._running is None or vault.login._running.done())
        vault.login._next_at = float("inf")  # the next attempt is a while away
        before = count(fake, LOGIN)
        for _ in range(50):
            with pytest.raises(VaultBad, match="role id or secret id is wrong"):
                vault.request("GET", SELF).send(None)  # at once: it does not even give up its turn
        assert count(fake, LOGIN) == before
        assert not vault.healthy


async def test_a_call_waits_for_a_login_no_longer_than_its_own_deadline(fake: LyingVault, tmp_path: Path) -> None:
    hold = threading.Event()
    fake.lies[LOGIN] = Lie(hold=hold)
    async with vault_of(fake, approle(tmp_path)) as vault:
        async with lateness() as late:
            begun = time.monotonic()
            with pytest.raises(VaultUnavailable, match=r"took longer than 0\.2 s"):
                await vault.request("GET", SELF, deadline_s=0.2)
            took = time.monotonic() - begun
        assert took < DEADLINE_S / 2 + late.seconds  # the login itself may take the whole of it
        hold.set()
        await vault.request("GET", SELF)


async def test_a_live_session_serves_while_vault_cannot_renew_it(fake: LyingVault, tmp_path: Path) -> None:
    fake.life_s = LIFE_S
    fake.lies[RENEW] = Lie(instead=error(500))
    async with vault_of(fake, approle(tmp_path)) as vault:
        await until(lambda: vault.healthy)
        vault.login._renew_at = 0.0  # two thirds of its life are over
        await until(lambda: count(fake, RENEW) >= 2)
        keep, before = threading.Event(), count(fake, RENEW)
        fake.lies[RENEW] = Lie(keep=keep)
        await until(lambda: count(fake, RENEW) > before)  # a renewal is under way, and gets no answer
        async with lateness() as late:
            begun = time.monotonic()
            await vault.request("GET", SELF)
            took = time.monotonic() - begun
        assert took < DEADLINE_S / 2 + late.seconds
        keep.set()
        fake.lies.clear()
        await until(lambda: vault.login._failed is None)
        assert vault.login.logins == 1


async def test_it_is_back_soon_after_vault_is(tmp_path: Path) -> None:
    with LyingVault() as fake:
        fake.lies[LOGIN] = Lie(instead=error(503, "Vault is sealed"))
        async with vault_of(fake, approle(tmp_path)) as vault:
            await until(lambda: count(fake, LOGIN) >= 5)
            fake.lies.clear()
            before = count(fake, LOGIN)
            # The next attempt is a second away at most, and it is the one that counts; one more may be under way.
            assert vault.login._next_at - time.monotonic() <= logins.UNREACHED_WAIT_S
            await until(lambda: vault.healthy)
            assert count(fake, LOGIN) <= before + 1


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
