"""The machine over a PostgreSQL of its own, for the large sizes."""

from __future__ import annotations

from model.walking import walk
from soak.result import Result
from stepgrant_broker.store.schema import migrate
from stepgrant_services import PostgresServer


def slice(number: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` examples."""
    with PostgresServer(options={"fsync": "off"}) as server:
        url = server.create_database()
        migrate(url)
        return walk(number, size, url)
