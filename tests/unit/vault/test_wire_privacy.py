"""The wire to Vault: one address, nothing of the environment, and nothing secret in any message."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fakes.lying_vault import ROOT, Answer, Lie, LyingVault, error
from stepgrant_broker.vault.faults import (
    VaultBad,
    VaultDenied,
    VaultFault,
    VaultUnavailable,
    trimmed,
)
from stepgrant_broker.vault.wire import VaultToken, Where, Wire

SELF = "auth/token/lookup-self"
TOKEN = VaultToken(ROOT)


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


@pytest.fixture
async def wire(fake: LyingVault) -> AsyncIterator[Wire]:
    made = Wire(Where(fake.addr), workers=2, queue=2)
    yield made
    await made.close()


async def ask(wire: Wire, deadline_s: float = 5.0) -> dict[str, object]:
    return await wire.send("GET", SELF, token=TOKEN, deadline_s=deadline_s)


# --- one address, nothing of the environment ------------------------------------------------------------------------


async def test_a_redirect_is_not_followed(fake: LyingVault, wire: Wire) -> None:
    with LyingVault() as other:
        for status in (301, 302, 303, 307, 308):
            fake.lies[SELF] = Lie(instead=Answer(status, None), headers={"Location": f"{other.addr}/v1/{SELF}"})
            with pytest.raises(VaultUnavailable, match=r"redirects GET auth/token/lookup-self \(a standby\?\)"):
                await ask(wire)
        assert other.connections == 0


async def test_nothing_of_the_environment_counts(
    fake: LyingVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with LyingVault() as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "VAULT_ADDR"):
            monkeypatch.setenv(name, other.addr)
        monkeypatch.setenv("VAULT_TOKEN", "hvs.of-the-environment")
        monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".vault-token").write_text("hvs.of-the-home-folder")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2")
        (tmp_path / ".netrc").chmod(0o600)
        wire = Wire(Where(fake.addr))
        with pytest.raises(VaultDenied):
            await wire.send("GET", SELF, token=None)
        await wire.close()
        assert other.connections == 0
    headers = fake.asked[0].headers
    assert headers.keys() <= {"host", "user-agent", "accept-encoding", "x-vault-request"}
    assert headers["x-vault-request"] == "true"


async def test_cookies_are_neither_kept_nor_sent(fake: LyingVault) -> None:
    fake.lies[SELF] = Lie(headers={"Set-Cookie": "a=b"})
    wire = Wire(Where(fake.addr), workers=1)
    for _ in range(2):
        await ask(wire)
    assert "cookie" not in fake.asked[1].headers
    await wire.close()


async def test_namespace_and_wrapping_go_in_their_headers(fake: LyingVault) -> None:
    wire = Wire(Where(fake.addr, namespace="team/a"))
    await wire.send("GET", SELF, token=TOKEN, wrap_ttl_s=30)
    await wire.close()
    assert fake.asked[0].headers["x-vault-namespace"] == "team/a"
    assert fake.asked[0].headers["x-vault-wrap-ttl"] == "30s"


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/../b", "..", "a/.", "a?b=c", "a#b", "a%2fb", "a\nb", "ä", "a/"])
async def test_a_path_of_another_form_is_not_sent(fake: LyingVault, wire: Wire, path: str) -> None:
    with pytest.raises(VaultBad, match="is not sent to Vault"):
        await wire.send("GET", path, token=TOKEN)
    assert fake.asked == []


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_token_is_masked_and_can_neither_be_pickled_nor_copied() -> None:
    assert ROOT not in f"{TOKEN!r} {TOKEN}"
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(TOKEN)


@pytest.mark.parametrize("lie", [Lie(drop=True), Lie(instead=error(500, f"token {ROOT} broke")), Lie(raw=b"{")])
async def test_no_failure_carries_the_token_or_the_body(fake: LyingVault, wire: Wire, lie: Lie) -> None:
    fake.lies[SELF] = lie
    body = {"secret_id": "hunter2"}
    with pytest.raises(VaultFault) as caught:
        await wire.send("POST", SELF, body, token=TOKEN)
    told = [*traceback.format_exception(caught.value), caught.value.said, repr(vars(caught.value))]
    told += [repr(frame.f_locals) for frame, _ in traceback.walk_tb(caught.value.__traceback__) if _is_ours(frame)]
    assert ROOT not in "".join(told)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in f"{caught.value.said} {vars(caught.value)}"


def _is_ours(frame: object) -> bool:
    return "stepgrant_broker" in str(frame)


def test_foreign_words_are_short_and_masked() -> None:
    said = trimmed("pq: role \"v-token-x\" failed\n\x00 hvs.CAESIJlmnopqrstuvwxyz0123 'pass word' " + "long " * 100)
    assert said.startswith("pq: role … failed … … long")
    assert len(said) <= 160
