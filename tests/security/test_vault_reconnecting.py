"""A thief that connects again and again with a login that is being dropped, on a real Vault and a real PostgreSQL.

Vault ends the sessions of a login and drops it in one transaction. Who connects in between is in, under a role that a
moment later does not exist any more: Vault has confirmed, and a session lives. What `deploy/vault/orders-create.sql`
says ends it before there is another login.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conformance.issuer.adapters import LOGIN
from logins import REVOCATION, ROLE, DatabaseLab, database_lab
from stepgrant_broker.domain.ports import Minted

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

FOLDER = Path(__file__).parents[2] / "deploy" / "vault"
RECOMMENDED = {name: (FOLDER / f"orders-{name}.sql").read_text(encoding="utf-8") for name in ("create", "revoke")}
NAMELESS = "select pid from pg_stat_activity where usesysid is not null and usename is null"
CONNECTED = "select count(*) from pg_stat_activity where usename like 'v-%'"
SLOWLY = (REVOCATION[0], "SELECT pg_sleep(0.5)", *REVOCATION[1:])
"""A revocation as many write it, on a busy server."""
MOST = 20


@pytest.fixture
async def lab(vault_server: VaultServer, postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[DatabaseLab]:
    async with database_lab(vault_server, postgres_server, tmp_path) as made:
        yield made


@contextmanager
def connecting(lab: DatabaseLab, minted: Minted) -> Iterator[None]:
    """Threads that open sessions under this login as fast as they can, and keep the newest."""
    over, sessions = threading.Event(), deque[psycopg.Connection[tuple[Any, ...]]]()

    def work() -> None:
        while not over.is_set():
            with suppress(psycopg.OperationalError):
                sessions.append(lab.connect(minted))
            if len(sessions) > MOST:
                sessions.popleft().close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.close()


async def test_no_session_of_a_dropped_login_is_left_when_there_is_another_login(lab: DatabaseLab) -> None:
    lab.role(revocation=SLOWLY)
    handle = await lab.issuer.intend(LOGIN)
    minted = await lab.issuer.mint(LOGIN, handle)
    with connecting(lab, minted):
        while lab.postgres.sql(CONNECTED) == ["0"]:
            assert lab.logins() == [minted.fields["username"]]
        assert await lab.issuer.revoke(
            tenant=LOGIN.tenant, jti=LOGIN.jti, handle=handle, lease=minted.lease, now=LOGIN.issued_at
        )
        assert lab.logins() == []
        assert lab.postgres.sql(NAMELESS) != [], "nobody got in between: has PostgreSQL or Vault mended that?"
        another_login(lab)
        assert lab.postgres.sql(NAMELESS) != []
        lab.role(creation=[RECOMMENDED["create"]], revocation=[RECOMMENDED["revoke"]])
        another_login(lab)
        assert lab.postgres.sql(NAMELESS) == []


def another_login(lab: DatabaseLab) -> None:
    lab.server.request("GET", f"{lab.config.mount}/creds/{ROLE}")
