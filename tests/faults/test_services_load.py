"""Two thousand begins through a whole broker while its Vault is killed, stopped and comes back.

`test_opa_load.py` does the same to OPA and PostgreSQL. Nothing is wrongly allowed, nothing that was acknowledged is
lost, nothing is there twice, and the first call is served within two seconds of the service's return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from faults.loading import ALLOWED, BACK_S, DENIED, LOGIN, POLICY, Load
from stepgrant_broker.testing import TestHost, start
from vaulted import vault_with_logins

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

BEGINS: Final = 2_048


def nothing_lives(load: Load, vault: VaultServer, postgres: PostgresServer) -> None:
    """Sweep until Vault has no lease and no token, PostgreSQL no login that anybody was given, and all is confirmed.

    A Vault that is killed between making a role and writing down its lease forgets that role. Nobody ever got its
    password, and `VALID UNTIL` has closed it; only the database's owner can drop it.
    """
    end, pause = time.monotonic() + 300, 0.2
    while vault.leftovers() or load.story.logins.intersection(logins_of(postgres)) or due(load.host):
        assert time.monotonic() < end, (vault.leftovers(), logins_of(postgres))
        load.host.sweep_now()
        time.sleep(pause)
        pause = min(1.5 * pause, 2.0)
    forgotten = "select count(*) from pg_roles where rolname like 'v-%' and rolvaliduntil is null"
    assert postgres.sql(forgotten) == ["0"]


def logins_of(postgres: PostgresServer) -> list[str]:
    return postgres.sql("select rolname from pg_roles where rolname like 'v-%'")


def due(host: TestHost) -> int:
    """Credentials outside that are not known to be dead."""
    return len(host.call(lambda broker: broker.ports.reads.leases_due(1 << 52, 1000)))


@pytest.mark.timeout(900)
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
        backs = load.through(stack, (vault.kill, vault.start), (vault.stop, vault.start))
        load.check()
        nothing_lives(load, vault, postgres)
    assert set(load.story.refused) <= {"issuer_unavailable", "prior_credential_live"}
    assert load.story.refused["issuer_unavailable"]
    assert max(backs) < BACK_S
