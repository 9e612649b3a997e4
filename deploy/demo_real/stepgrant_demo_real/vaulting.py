"""What the demo sets up in Vault, with the root token, and what it looks up there afterwards.

What the brokers need themselves is made by `stepgrant vault setup`. Each role of the database engine stands for one
step; its statements also write into the database's own book, in the very transaction that makes or drops a login, which
other logins live at that moment and how many sessions were ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.issuers.vault_database import DatabaseConfig

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

ISSUER: Final = "app-db"
ROLES: Final = ("app_create", "app_room", "app_defaults", "app_activate", "app_look")
TTL_S: Final = 60
MAKER: Final = "vault_maker"
AUDIT: Final = "audit"
PASSWORDS: Final = "demo-passwords"
PASSWORD_LENGTH: Final = 40
PASSWORD_MARKS: Final = 8
"""So many `~` are in each password, so that one can be recognised wherever it may have come to rest."""

CREATION: Final = """
SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
  WHERE usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = usesysid);
CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE %(role)s;
INSERT INTO book.logins (what, login, role, others) SELECT 'made', '{{name}}', '%(role)s',
  array(SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'v-%%' AND rolname <> '{{name}}');
"""
REVOCATION: Final = """
INSERT INTO book.logins (what, login, sessions) SELECT 'dropped', '{{name}}', count(pg_terminate_backend(pid, 2000))
  FROM pg_stat_activity WHERE usename = '{{name}}';
DROP ROLE IF EXISTS "{{name}}";
"""
"""Who connects again and again can get in between the end of its sessions and the commit that drops its login. Such a
session has no role any more; the next login is made by a transaction that ends it first."""


def issuers_file(path: Path, port: int) -> None:
    """Write the issuers file: one issuer, whose logins are for the database behind this port."""
    roles = ", ".join(f'"{role}"' for role in ROLES)
    path.write_text(
        f'[issuer.{ISSUER}]\nkind = "{DatabaseConfig.kind}"\nroles = [{roles}]\n'
        f'host = "127.0.0.1"\nport = {port}\ndatabase = "app"\nmax_ttl_s = {TTL_S}\n',
        encoding="utf-8",
    )


def set_up_database(vault: VaultServer, database: str, maker_password: str, audit: Path) -> None:
    """The database engine with a role for each step, and an audit log. `database` is host:port/name."""
    vault.request("PUT", f"sys/audit/{AUDIT}", {"type": "file", "options": {"file_path": str(audit)}})
    marks = f'rule "charset" {{ charset = "~" min-chars = {PASSWORD_MARKS} }}'
    rest = 'rule "charset" { charset = "abcdefghijkmnpqrstuvwxyz23456789" min-chars = 8 }'
    vault.request(
        "PUT", f"sys/policies/password/{PASSWORDS}", {"policy": f"length = {PASSWORD_LENGTH}\n{marks}\n{rest}"}
    )
    vault.request("POST", "sys/mounts/database", {"type": "database"})
    vault.request(
        "POST",
        "database/config/app",
        {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": list(ROLES),
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{database}?sslmode=disable",
            "username": MAKER,
            "password": maker_password,
            "password_authentication": "scram-sha-256",
            "password_policy": PASSWORDS,
        },
    )
    for role in ROLES:
        vault.request(
            "POST",
            f"database/roles/{role}",
            {
                "db_name": "app",
                "creation_statements": [CREATION % {"role": role}],
                "revocation_statements": [REVOCATION],
                "default_ttl": f"{TTL_S}s",
                "max_ttl": f"{TTL_S}s",
            },
        )


def broker_role_id(vault: VaultServer) -> str:
    """The id of the AppRole that `stepgrant vault setup` made."""
    return str(_data(vault.request("GET", "auth/approle/role/stepgrant-broker/role-id"))["role_id"])


def _data(answer: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = answer["data"]
    return data


def new_password() -> str:
    """For Vault's own login at the database."""
    return secrets.token_hex(16)


def a_login(vault: VaultServer) -> tuple[str, str, str]:
    """One login, made by root for a look at its shape: lease, username, password. Revoke it with `drop`."""
    answer = vault.request("GET", "database/creds/app_look")
    data = _data(answer)
    return str(answer["lease_id"]), str(data["username"]), str(data["password"])


def drop(vault: VaultServer, lease: str) -> None:
    """Revoke a lease and wait until it is."""
    vault.request("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
