"""The ways to log in, on a real Vault."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fakes.vault_sessions import until
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.faults import VaultBad, VaultDenied, VaultMissing
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import AppRole, Jwt, Method, TokenFile
from stepgrant_broker.vault.wire import Where, Wire
from vaulted import mounted, unique

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

SELF = "auth/token/lookup-self"


@asynccontextmanager
async def session(server: VaultServer, method: Method) -> AsyncIterator[Vault]:
    wire = Wire(Where(server.addr))
    vault = Vault(wire, Login(wire, method))
    try:
        yield vault
    finally:
        await vault.close()


def auth_mount(server: VaultServer, kind: str) -> str:
    path = unique(kind)
    server.request("POST", f"sys/auth/{path}", {"type": kind})
    return path


def private(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.mark.parametrize("wrapped", [False, True])
async def test_approle(vault_server: VaultServer, tmp_path: Path, *, wrapped: bool) -> None:
    mount = auth_mount(vault_server, "approle")
    role = f"auth/{mount}/role/broker"
    vault_server.request("POST", role, {"secret_id_num_uses": 2, "token_ttl": "30s", "token_max_ttl": "60s"})
    role_id = vault_server.request("GET", f"{role}/role-id")["data"]["role_id"]
    if wrapped:
        wire = Wire(Where(vault_server.addr))
        method = TokenFile(vault_server.root_token_file)
        token = (await method.login(wire)).token
        answer = await wire.send("POST", f"{role}/secret-id", {}, token=token, wrap_ttl_s=60)
        secret = answer["wrap_info"]["token"]
        await wire.close()
    else:
        secret = vault_server.request("POST", f"{role}/secret-id", {})["data"]["secret_id"]

    async with session(vault_server, AppRole(mount, role_id, private(tmp_path, secret))) as vault:
        first = await vault.request("GET", SELF)
        assert first["data"]["path"] == f"auth/{mount}/login"
        vault.start()
        for _ in range(2):
            vault.login._renew_at = 0.0  # two thirds of its life are over
            await until(lambda: vault.login._renew_at > 0.0)
            assert (await vault.request("GET", SELF))["data"]["accessor"] == first["data"]["accessor"]
        assert vault.login.logins == 1
        token = await vault.login.token()
    with pytest.raises(VaultDenied):
        async with session(vault_server, TokenFile(private(tmp_path, token.reveal()))) as vault:
            await vault.request("GET", SELF)
    if wrapped:
        async with session(vault_server, AppRole(mount, role_id, private(tmp_path, secret))) as vault:
            with pytest.raises(VaultDenied, match="treat it as stolen"):
                await vault.request("GET", SELF)


async def test_a_secret_id_that_is_used_up_is_named(vault_server: VaultServer, tmp_path: Path) -> None:
    mount = auth_mount(vault_server, "approle")
    role = f"auth/{mount}/role/broker"
    vault_server.request("POST", role, {"secret_id_num_uses": 1})
    role_id = vault_server.request("GET", f"{role}/role-id")["data"]["role_id"]
    secret = vault_server.request("POST", f"{role}/secret-id", {})["data"]["secret_id"]
    method = AppRole(mount, role_id, private(tmp_path, secret))
    async with session(vault_server, method) as vault:
        own = await vault.login.token()
        vault_server.request("POST", "auth/token/revoke-self", {}, token=own.reveal())
        vault.login._began_at = float("-inf")
        with pytest.raises(VaultBad, match="used up or expired; put a new one into"):
            await vault.request("GET", SELF)


async def test_jwt(vault_server: VaultServer, tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    mount = auth_mount(vault_server, "jwt")
    vault_server.request("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [public]})
    vault_server.request("POST", f"auth/{mount}/role/broker", {
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "bound_subject": "broker",
        "expiration_leeway": -1, "clock_skew_leeway": 5, "token_ttl": "60s",
    })  # fmt: skip

    def signed(**claims: object) -> str:
        now = int(time.time())
        common = {"sub": "broker", "aud": "vault", "iat": now, "nbf": now, "exp": now + 30}
        return jwt.encode({**common, **claims}, key, algorithm="ES256")

    async with session(vault_server, Jwt(mount, "broker", private(tmp_path, signed()))) as vault:
        assert (await vault.request("GET", SELF))["data"]["display_name"] == f"{mount}-broker"
    for wrong in (signed(aud="other"), signed(sub="somebody"), signed(exp=int(time.time()) - 60)):
        async with session(vault_server, Jwt(mount, "broker", private(tmp_path, wrong))) as vault:
            with pytest.raises(VaultBad, match=f"refused the login at auth/{mount} with role broker") as caught:
                await vault.request("GET", SELF)
            assert wrong not in str(caught.value)


async def test_a_vault_without_the_mount_names_it(vault_server: VaultServer, tmp_path: Path) -> None:
    method = AppRole("nowhere", "role", private(tmp_path, "11111111-2222-3333-4444-555555555555"))
    async with session(vault_server, method) as vault:
        with pytest.raises((VaultDenied, VaultMissing), match="auth/nowhere"):
            await vault.request("GET", SELF)


async def test_a_namespace_that_this_vault_does_not_have_is_refused(vault_server: VaultServer) -> None:
    mounted(vault_server, "kv")
    wire = Wire(Where(vault_server.addr, namespace="team-a"))
    vault = Vault(wire, Login(wire, TokenFile(vault_server.root_token_file)))
    with pytest.raises((VaultDenied, VaultMissing, VaultBad)):
        await vault.request("GET", "kv/x")
    await vault.close()
