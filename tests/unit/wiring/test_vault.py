"""Vault's settings, and a broker that opens Vault's issuers from them."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fakes.lying_vault import ROOT, LyingVault
from stepgrant_broker.config import Settings, SettingsError, explicit_settings, spelled
from stepgrant_broker.vault.methods import AppRole, Jwt, TokenFile
from stepgrant_broker.wiring import build
from stepgrant_broker.wiring.vault import vault_of

ADDR = "https://vault.example:8200"
APPROLE = {"vault_role_id": "r", "vault_secret_id_file": "secret-id"}
ISSUERS = """
[issuer.orders-db]
kind = "vault-database"
roles = ["orders-rw"]
host = "127.0.0.1"
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vault_addr": "http://vault.example:8200", **APPROLE}, "VAULT_ADDR: must be like https://vault.example:8200"),
        ({"vault_addr": "vault.example", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": "https://u:p@vault.example", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": "https://vault.example/v1", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": "https://vault.example?x=1", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": "https://vault.example:x", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": "ftp://vault.example", **APPROLE}, "VAULT_ADDR: must be like"),
        ({"vault_addr": ADDR}, "vault_auth approle needs vault_role_id and vault_secret_id_file"),
        ({"vault_addr": ADDR, "vault_auth": "jwt"}, "vault_auth jwt needs vault_role and vault_jwt_file"),
        ({"vault_addr": ADDR, "vault_auth": "kubernetes"}, "vault_auth kubernetes needs vault_role"),
        ({"vault_addr": ADDR, "vault_auth": "token"}, "vault_auth token needs vault_token_file"),
        ({"vault_addr": ADDR, "vault_auth": "ldap"}, "VAULT_AUTH: "),
        ({"vault_addr": ADDR, **APPROLE, "vault_auth_mount": "../sys"}, "VAULT_AUTH_MOUNT: must be the mount's path"),
        ({"vault_role_id": "r"}, "vault_role_id only count with vault_addr"),
        ({"issuers_file": "x.toml"}, "issuers_file only count with vault_addr"),
    ],
    ids=count(),
)
def test_what_is_not_whole_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        explicit_settings(**given)
    assert spelled(said) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (APPROLE, AppRole),
        ({"vault_auth": "jwt", "vault_role": "r", "vault_jwt_file": "jwt"}, Jwt),
        ({"vault_auth": "kubernetes", "vault_role": "r"}, Jwt),
        ({"vault_auth": "token", "vault_token_file": "token"}, TokenFile),
    ],
)
async def test_each_method_is_built(given: dict[str, Any], kind: type[object]) -> None:
    vault = vault_of(explicit_settings(vault_addr="http://127.0.0.1:8200/", vault_namespace="team", **given))
    assert type(vault.login._method) is kind
    assert (vault.wire.where.addr, vault.wire.where.namespace) == ("http://127.0.0.1:8200", "team")
    await vault.close()


def test_without_an_address_there_is_no_vault() -> None:
    with pytest.raises(SettingsError, match="VAULT_ADDR"):
        vault_of(explicit_settings())


def with_vault(settings: Settings, folder: Path, addr: str, issuers: str = ISSUERS) -> Settings:
    token, file = folder / "token", folder / "issuers.toml"
    token.touch(mode=0o600)
    token.write_text(ROOT)
    file.write_text(issuers)
    return explicit_settings(
        data_dir=settings.data_dir, vault_addr=addr, vault_auth="token", vault_token_file=token, issuers_file=file
    )


async def test_a_broker_has_the_issuers_of_its_file(settings: Settings, tmp_path: Path) -> None:
    with LyingVault() as fake:
        async with build(with_vault(settings, tmp_path, fake.addr), create=True) as broker:
            issuer = broker.ports.issuers["orders-db"]
            assert (issuer.name, issuer.outside, issuer.max_ttl_s) == ("orders-db", True, 60)
            assert broker.ports.issuers.keys() == {"jwt", "static", "orders-db"}
            assert broker.vault is not None
            await broker.vault.login.token()
            assert broker.vault.healthy
            assert "\nstepgrant_vault_session_up 1\n" in broker.metrics.text()


async def test_a_broker_starts_while_vault_is_away(settings: Settings, tmp_path: Path) -> None:
    async with build(with_vault(settings, tmp_path, "http://127.0.0.1:1"), create=True) as broker:
        assert broker.vault is not None
        assert not broker.vault.healthy
        assert "\nstepgrant_vault_session_up 0\n" in broker.metrics.text()


async def test_a_broker_without_vault_says_nothing_of_a_session(settings: Settings) -> None:
    async with build(settings, create=True) as broker:
        assert "stepgrant_vault" not in broker.metrics.text()


async def test_a_wrong_issuers_file_starts_nothing(settings: Settings, tmp_path: Path) -> None:
    wrong = with_vault(settings, tmp_path, "http://127.0.0.1:1", ISSUERS.replace("roles", "rolls"))
    with pytest.raises(SettingsError, match=r"STEPGRANT_BROKER_ISSUERS_FILE: \[issuer\.orders-db\] roles is missing"):
        async with build(wrong, create=True):
            pytest.fail("it started")


async def test_without_the_extra_it_says_what_to_install(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("stepgrant_broker.vault", "stepgrant_broker.wiring.v"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hvac.adapters", None)
    with pytest.raises(SettingsError, match=r"pip install 'stepgrant\[vault\]'"):
        async with build(with_vault(settings, tmp_path, "http://127.0.0.1:1"), create=True):
            pytest.fail("it started")
