"""Real database logins: a mount of Vault's database engine over a real PostgreSQL, and our issuer on it.

    async with database_lab(vault_server, postgres_server, tmp_path) as lab:
        minted = await lab.mint(order)                     # intend and mint
        assert lab.logins() == [minted.fields["username"]]
        session = lab.connect(minted)                      # psycopg, under that login

The broker's session has exactly the rights that the issuer's configuration names (`broker_rules`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.issuers.vault_database import DatabaseConfig, VaultDatabaseIssuer
from stepgrant_broker.vault.client import Vault
from vaulted import client, mounted, unique

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

ROLE: Final = "orders-rw"
CREATION: Final = ("CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",)
TERMINATION: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'"
REVOCATION: Final = (TERMINATION, 'DROP ROLE IF EXISTS "{{name}}"')


@dataclass
class DatabaseLab:
    """The issuer under test, what it stands on, and what root sees of it."""

    server: VaultServer
    postgres: PostgresServer
    vault: Vault
    config: DatabaseConfig
    issuer: VaultDatabaseIssuer

    def role(
        self,
        name: str = ROLE,
        *,
        ttl_s: int = 60,
        creation: Sequence[str] = CREATION,
        revocation: Sequence[str] = REVOCATION,
        **more: object,
    ) -> None:
        """Define a role of the engine anew."""
        body = {"db_name": "app", "creation_statements": list(creation), "revocation_statements": list(revocation)}
        times = {"default_ttl": ttl_s, "max_ttl": ttl_s}
        self.server.request("POST", f"{self.config.mount}/roles/{name}", {**body, **times, **more})

    async def mint(self, order: GrantOrder) -> Minted:
        """Intend and mint."""
        return await self.issuer.mint(order, await self.issuer.intend(order))

    def logins(self) -> list[str]:
        """The logins of Vault that PostgreSQL has."""
        return self.postgres.sql("select rolname from pg_roles where rolname like 'v-%'")

    def connect(self, minted: Minted) -> psycopg.Connection[tuple[Any, ...]]:
        """A session under this login. Raises `psycopg.OperationalError`."""
        fields = minted.fields
        return psycopg.connect(
            host=fields["host"], port=fields["port"], dbname=fields["database"], user=fields["username"],
            password=fields["password"], connect_timeout=60,
        )  # fmt: skip

    async def works(self, minted: Minted) -> bool:
        """Whether PostgreSQL lets it in."""
        try:
            (await asyncio.to_thread(self.connect, minted)).close()
        except psycopg.OperationalError:
            return False
        return True

    def lease(self, lease: str) -> dict[str, Any]:
        """What Vault knows of a lease. Raises `ServiceError` when that is nothing."""
        data: dict[str, Any] = self.server.request("POST", "sys/leases/lookup", {"lease_id": lease})["data"]
        return data

    def clean(self) -> None:
        """Take back what a test left alive."""
        self.server.request("PUT", f"sys/leases/revoke-prefix/{self.config.mount}", {"sync": True})
        for left in self.server.leftovers():
            what, name, *_ = left.split(" ")
            if what == "token":
                self.server.request("POST", "auth/token/revoke-accessor", {"accessor": name})


def prepare_engine(server: VaultServer, postgres: PostgresServer) -> str:
    """A database mount, connected to this PostgreSQL as `app`; its path."""
    mount = mounted(server, "database")
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host_port}/postgres?sslmode=disable"
    server.request("POST", f"{mount}/config/app", {
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": ["*"],
        "username": postgres.user, "password": postgres.password, "password_authentication": "scram-sha-256",
    })  # fmt: skip
    server.request("POST", "auth/token/roles/stepgrant", {
        "orphan": True, "renewable": False, "token_no_default_policy": True, "token_type": "service",
        "allowed_policies_glob": ["stepgrant.*"], "token_explicit_max_ttl": 400,
    })  # fmt: skip
    return mount


def broker_token(server: VaultServer, rules: Mapping[str, Sequence[str]], folder: Path) -> Path:
    """A file with a token that is allowed these rules and nothing else."""
    name = unique("broker")
    text = "\n".join(
        f'path "{path}" {{ capabilities = [{", ".join(f"{one!r}" for one in can)}] }}' for path, can in rules.items()
    ).replace("'", '"')
    server.request("PUT", f"sys/policies/acl/{name}", {"policy": text})
    made = server.request("POST", "auth/token/create", {"policies": [name], "ttl": "1h", "no_parent": True})
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(made["auth"]["client_token"])
    return path


@asynccontextmanager
async def database_lab(
    server: VaultServer,
    postgres: PostgresServer,
    folder: Path,
    **changed: Any,  # noqa: ANN401 - members of the config
) -> AsyncIterator[DatabaseLab]:
    """An issuer with one good role, under a session of least rights; nothing of it is left afterwards."""
    mount = prepare_engine(server, postgres)
    host, _, port = postgres.host_port.rpartition(":")
    config = DatabaseConfig(
        name=unique("orders-db"), mount=mount, roles=(ROLE,), max_ttl_s=60, token_role="stepgrant",
        host=host, port=int(port), database="postgres",
    )  # fmt: skip
    config = replace(config, **changed)
    for name, text in config.vault_policies().items():
        server.request("PUT", f"sys/policies/acl/{name}", {"policy": text})
    token_file = broker_token(server, config.broker_rules(), folder)
    async with client(server.addr, token_file) as vault:
        lab = DatabaseLab(server, postgres, vault, config, config.build(vault))
        lab.role()
        try:
            yield lab
        finally:
            if server.pid:
                await asyncio.to_thread(lab.clean)


@asynccontextmanager
async def nowhere(folder: Path) -> AsyncIterator[Vault]:
    """A client whose Vault is not there."""
    token_file = folder / "nobody"
    token_file.touch(mode=0o600)
    token_file.write_text("hvs.nobody")
    async with client(f"http://127.0.0.1:{free_port()}", token_file) as vault:
        yield vault


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
