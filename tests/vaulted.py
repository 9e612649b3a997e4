"""A real Vault for tests of what is built on it: our client under the root token, and keys and mounts of one's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrant_broker.signing.transit import TransitSigner
from stepgrant_broker.signing.transit_wrap import KEY_TYPE, Transit
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import TokenFile
from stepgrant_broker.vault.wire import Where, Wire
from stepgrant_broker.wiring.clock import SystemClock

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Clock
    from stepgrant_services import PostgresServer, VaultServer

TYPES = {"grants": "ecdsa-p256", "access": "ecdsa-p256", "heads": "ed25519"}


def unique(name: str) -> str:
    """A name that no other test has: the worker's Vault is shared."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def mounted(server: VaultServer, kind: str, **options: object) -> str:
    """The path of a new mount of this kind."""
    path = unique(kind)
    server.request("POST", f"sys/mounts/{path}", {"type": kind, **options})
    return path


def transit_keys(server: VaultServer, mount: str) -> dict[str, str]:
    """A key for each purpose of a signer: purpose to name."""
    for purpose, kind in TYPES.items():
        server.request("POST", f"{mount}/keys/sg-{purpose}", {"type": kind})
    return {purpose: f"sg-{purpose}" for purpose in TYPES}


def transit_of(server: VaultServer, vault: Vault, mount: str | None = None) -> Transit:
    """A key that wraps, of one's own."""
    mount = mount or mounted(server, "transit")
    server.request("POST", f"{mount}/keys/sg-wrap", {"type": KEY_TYPE})
    return Transit(vault, mount, "sg-wrap")


@asynccontextmanager
async def client(addr: str, token_file: Path) -> AsyncIterator[Vault]:
    """Our client of this Vault, under the token in this file."""
    wire = Wire(Where(addr))
    vault = Vault(wire, Login(wire, TokenFile(token_file)))
    vault.start()
    try:
        yield vault
    finally:
        await vault.close()


@asynccontextmanager
async def transit_signer(
    server: VaultServer,
    *,
    mount: str | None = None,
    names: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    **times: Any,  # noqa: ANN401 - those of the signer
) -> AsyncIterator[TransitSigner]:
    """A signer over keys of its own."""
    mount = mount or mounted(server, "transit")
    names = names or transit_keys(server, mount)
    async with client(server.addr, server.root_token_file) as vault:
        yield TransitSigner(vault, mount, names, clock or SystemClock(), **times)


def vault_with_logins(vault: VaultServer, postgres: PostgresServer, folder: Path) -> dict[str, object]:
    """Keys of a signer and a database engine in this Vault; the settings of a broker that uses both."""
    vault.request("POST", "sys/mounts/transit", {"type": "transit"})
    for purpose, kind in TYPES.items():
        vault.request("POST", f"transit/keys/stepgrant-{purpose}", {"type": kind})
    database = postgres.create_database().rpartition("/")[2]
    vault.request("POST", "sys/mounts/database", {"type": "database"})
    vault.request("POST", "database/config/app", {
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "app-ro", "username": postgres.user,
        "password": postgres.password, "password_authentication": "scram-sha-256",
        "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host_port}/{database}?sslmode=disable",
    })  # fmt: skip
    vault.request("POST", "database/roles/app-ro", {
        "db_name": "app", "default_ttl": 60, "max_ttl": 60,
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"],
        "revocation_statements": [
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'",
            'DROP ROLE IF EXISTS "{{name}}"',
        ],
    })  # fmt: skip
    vault.request("POST", "sys/policies/acl/stepgrant.app-db.app-ro", {
        "policy": 'path "database/creds/app-ro" { capabilities = ["read"] }',
    })  # fmt: skip
    vault.request("POST", "auth/token/roles/stepgrant", {
        "allowed_policies_glob": "stepgrant.*", "orphan": True, "renewable": False, "token_no_default_policy": True,
    })  # fmt: skip
    issuers = folder / "issuers.toml"
    host, _, port = postgres.host_port.rpartition(":")
    issuers.write_text(
        f'[issuer.app-db]\nkind = "vault-database"\nroles = ["app-ro"]\nhost = "{host}"\nport = {port}\n'
        f'database = "{database}"\nmax_ttl_s = 60\n'
    )
    return {
        "vault_addr": vault.addr, "vault_auth": "token", "vault_token_file": vault.root_token_file,
        "issuers_file": issuers, "signer": "transit",
    }  # fmt: skip
