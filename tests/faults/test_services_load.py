"""Two thousand begins through a whole broker while its PostgreSQL, or its Vault, is killed, stopped and comes back.

`test_opa_load.py` does the same to OPA. Nothing is wrongly allowed, nothing that was acknowledged is lost, nothing is
there twice, and the first call is served within two seconds of the service's return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from faults.loading import ALLOWED, DENIED, Load
from stepgrant_broker.testing import TestHost, start
from vaulted import TYPES

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

BEGINS: Final = 2_048
BACK_S: Final = 2.0
LOGIN: Final = "look_up"
POLICY: Final = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := {"effect": "allow", "reasons": ["run"]} if startswith(input.action.tool, "stepgrant.run.")

decision := {"effect": "allow", "reasons": ["ok"], "grant": {"effect": "once"}} if input.action.tool == "greet"

decision := {"effect": "allow", "reasons": ["ok"], "grant": {
	"effect": "once",
	"issuer": "app-db",
	"ttl": 60,
	"params": {"role": "app-ro"},
}} if input.action.tool == "look_up"
"""


def through(load: Load, service: Any, stack: ExitStack) -> list[float]:  # noqa: ANN401 - any of the servers
    """Run the load; kill the service at a third and stop it at two thirds. Seconds until it was served again."""
    backs = []
    load.start(stack)
    for at, harm in ((1 / 3, service.kill), (2 / 3, service.stop)):
        load.until(int(load.begins * at))
        harm()
        time.sleep(1.0)
        service.start()
        backs.append(load.back_after(time.monotonic()))
    load.finish()
    return backs


@pytest.mark.timeout(300)
def test_postgres_goes_and_comes_back(new_postgres: Callable[..., PostgresServer], tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(new_postgres())
        options: dict[str, Any] = {
            "lease_s": 300,
            "policy": {"main.rego": POLICY},
            "database_url": server.create_database(),
        }
        load = Load(stack.enter_context(start(tmp_path / "broker", **options)), BEGINS)
        backs = through(load, server, stack)
        load.check()
    assert set(load.story.refused) <= {"ledger_unavailable"}
    assert load.story.refused
    assert max(backs) < BACK_S


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


def nothing_lives(load: Load, vault: VaultServer, postgres: PostgresServer) -> None:
    """Sweep until Vault has no lease and no token, PostgreSQL no login that anybody was given, and all is confirmed.

    A Vault that is killed between making a role and writing down its lease forgets that role. Nobody ever got its
    password, and `VALID UNTIL` has closed it; only the database's owner can drop it.
    """
    end = time.monotonic() + 150
    while vault.leftovers() or load.story.logins.intersection(logins_of(postgres)) or due(load.host):
        assert time.monotonic() < end, (vault.leftovers(), logins_of(postgres))
        load.host.sweep_now()
        time.sleep(0.2)
    forgotten = "select count(*) from pg_roles where rolname like 'v-%' and rolvaliduntil is null"
    assert postgres.sql(forgotten) == ["0"]


def logins_of(postgres: PostgresServer) -> list[str]:
    return postgres.sql("select rolname from pg_roles where rolname like 'v-%'")


def due(host: TestHost) -> int:
    """Credentials outside that are not known to be dead."""
    return len(host.call(lambda broker: broker.ports.reads.leases_due(1 << 52, 1000)))


@pytest.mark.timeout(400)
def test_vault_goes_and_comes_back(
    new_vault: Callable[..., VaultServer], new_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """Every token is signed in Vault, and every sixteenth begin asks for a database login besides."""

    def tool_of(number: int) -> str:
        return DENIED if number % 4 == 3 else LOGIN if number % 16 == 0 else ALLOWED

    with ExitStack() as stack:
        vault, postgres = stack.enter_context(new_vault(durable=True)), stack.enter_context(new_postgres())
        options: dict[str, Any] = {
            "lease_s": 300,
            "policy": {"main.rego": POLICY},
            **vault_with_logins(vault, postgres, tmp_path),
        }
        host = stack.enter_context(start(tmp_path / "broker", **options))
        load = Load(host, BEGINS, tool_of=tool_of)
        backs = through(load, vault, stack)
        load.check()
        nothing_lives(load, vault, postgres)
    assert set(load.story.refused) <= {"issuer_unavailable", "prior_credential_live"}
    assert load.story.refused["issuer_unavailable"]
    assert max(backs) < BACK_S
