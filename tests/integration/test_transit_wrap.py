"""Wrap keys that only a real Vault can open: for a whole broker, across restarts, rotation, and Vault being away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from logins import broker_token
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.signing.transit_wrap import KEY_TYPE, TransitWrap, wrap_rules
from stepgrant_broker.usecases.set_secret import set_secret
from stepgrant_broker.wiring import build, opened
from stepgrant_broker.wiring.wrapping import rewrap_all, rotate_wrap
from vaulted import client, mounted, transit_of

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

pytestmark = pytest.mark.needs("vault")
VALUE = "sk_live_0123456789abcdef"


def settings_for(server: VaultServer, folder: Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - settings
    mount = mounted(server, "transit")
    server.request("POST", f"{mount}/keys/sg-wrap", {"type": KEY_TYPE})
    return {
        "data_dir": folder / "data", "key_wrap": "transit", "transit_mount": mount, "transit_key_wrap": "sg-wrap",
        "vault_addr": server.addr, "vault_auth": "token",
        "vault_token_file": broker_token(server, wrap_rules(mount, "sg-wrap"), folder), "port": 0, **more,
    }  # fmt: skip


async def test_a_broker_under_a_vault_of_which_nothing_rests(vault_server: VaultServer, tmp_path: Path) -> None:
    """The rights of `vault setup` are enough. The folder's files are what Vault wrapped; a restart opens them again."""
    settings = explicit_settings(**settings_for(vault_server, tmp_path))
    async with build(settings, create=True) as broker:
        await set_secret(broker.ports, "default", None, name="mail", value=VALUE, hosts=("mail.example",))
        first = broker.ports.wrap.key_id
        kept = list(broker.ports.wrap._keys[1].values())  # type: ignore[attr-defined]
    assert len(kept) == 1
    files = {path.name: path.read_bytes() for path in (tmp_path / "data" / "keys").iterdir()}
    assert {"wrap-1.vault", "root-1.vault"} <= files.keys()
    assert not {name for name in files if name.startswith(("wrap", "root")) and name.endswith(".key")}
    assert all(files[name].startswith(b"vault:v1:") for name in ("wrap-1.vault", "root-1.vault"))
    async with opened(settings) as broker:
        assert broker.ports.wrap.key_id == first
        secret = await broker.store.secret("default", "mail")
        assert secret is not None
        loaded = await broker.store.load(Query("default"))
        assert loaded.key is not None
        assert await rotate_wrap(broker.ports, "default") != first
        done = await rewrap_all(broker.ports, broker.store, "default")
        assert (done["chain_keys"], done["secrets"], done["left"]) == (1, 1, 0)
    (tmp_path / "data" / "keys" / "wrap-1.vault").unlink()
    async with opened(settings) as broker:
        assert broker.ports.wrap.key_id == done["key_id"]
        secret = await broker.store.secret("default", "mail")
        assert secret is not None
        assert broker.ports.wrap.unwrap(secret.wrapped, aad.static_secret("default", "mail")) == VALUE.encode()


async def test_a_start_without_vault_is_refused_and_makes_no_keys(vault_server: VaultServer, tmp_path: Path) -> None:
    good = settings_for(vault_server, tmp_path)
    away = explicit_settings(**{**good, "vault_addr": "http://127.0.0.1:9"})
    with pytest.raises(SignerUnavailable):
        async with build(away, create=True):
            pytest.fail("it must not open")
    assert not list((tmp_path / "data").rglob("*.vault"))
    assert not list((tmp_path / "data").rglob("stepgrant.db"))
    async with build(explicit_settings(**good), create=True):
        pass
    with pytest.raises(SignerUnavailable):
        async with opened(away):
            pytest.fail("it must not open")


async def test_other_processes_take_a_new_key_up_and_vaults_own_key_can_be_rotated(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    async with client(vault_server.addr, vault_server.root_token_file) as vault:
        mount = mounted(vault_server, "transit")
        transit = transit_of(vault_server, vault, mount)
        one = await TransitWrap.open_with(transit, tmp_path / "keys", create=True)
        two = await TransitWrap.open_with(transit, tmp_path / "keys")
        await one.rotate()
        wrapped = one.wrap(b"secret", b"here")
        await two.refresh()
        assert two.unwrap(wrapped, b"here") == b"secret"
        vault_server.request("POST", f"{mount}/keys/sg-wrap/rotate", {})
        assert await one.rewrap_files() == 3
        vault_server.request("POST", f"{mount}/keys/sg-wrap/config", {"min_decryption_version": 2})
        three = await TransitWrap.open_with(transit, tmp_path / "keys")
        assert three.unwrap(wrapped, b"here") == b"secret"
        assert three.derive(b"x") == one.derive(b"x")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"bm90IHdyYXBwZWQ\n", "does not hold what Vault wrapped"), (b"vault:v1:AAAA\n", "Vault"), (b"", "does not hold")],
)
async def test_a_damaged_key_file_is_named(vault_server: VaultServer, tmp_path: Path, content: bytes, why: str) -> None:
    async with client(vault_server.addr, vault_server.root_token_file) as vault:
        transit = transit_of(vault_server, vault)
        await TransitWrap.open_with(transit, tmp_path / "keys", create=True)
        (tmp_path / "keys" / "wrap-1.vault").write_bytes(content)
        with pytest.raises(SignerUnavailable, match=why):
            await TransitWrap.open_with(transit, tmp_path / "keys")
