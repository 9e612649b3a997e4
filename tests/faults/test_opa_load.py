"""Two thousand begins through a whole broker while its OPA, and its PostgreSQL, are killed and come back.

One load for both: each of them goes away alone, is harmed in each way that it can be, and the other one is there.
`test_services_load.py` does the same to Vault. Nothing is wrongly allowed, nothing that was acknowledged is lost,
nothing is there twice, and the first call is served within a second of OPA's return, and two of PostgreSQL's. By how
much this machine is late meanwhile is taken off (`Load.through`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from faults.loading import BACK_S, POLICY, Load
from opas import Serve, serving
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.testing import start

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

BEGINS: Final = 2_048
OPA_BACK_S: Final = 1.0
"""Less than a database has: the broker keeps nothing of OPA that would have to be built up again."""
MAIN: Final = {"main.rego": POLICY}


@pytest.mark.timeout(900)
def test_opa_and_postgres_go_and_come_back_during_two_thousand_begins(
    opa_server: Serve, new_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        opa, postgres = serving(opa_server, from_files(MAIN), tmp_path), stack.enter_context(new_postgres())
        stack.enter_context(opa)
        host = stack.enter_context(
            start(
                tmp_path / "broker", lease_s=300, policy=MAIN, database_url=postgres.create_database(),
                policy_engine="opa", opa_url=opa.url, opa_timeout_ms=500,
            )
        )  # fmt: skip
        load = Load(host, BEGINS)
        backs = load.through(
            stack,
            (opa.kill, opa.start),
            (postgres.kill, postgres.start),
            (opa.pause, opa.resume),
            (postgres.stop, postgres.start),
            (opa.stop, opa.start),
        )
        load.check()
    assert set(load.story.refused) == {"policy_unavailable", "ledger_unavailable"}
    of_opa, of_postgres = backs[::2], backs[1::2]
    assert max(of_opa) < OPA_BACK_S
    assert max(of_postgres) < BACK_S
