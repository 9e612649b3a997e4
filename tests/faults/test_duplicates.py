"""A thousand duplicates of every call: on SQLite, across two brokers on PostgreSQL, over crashes and lost replies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from faults.duplicates import LONG_LEASE, VERBS, Duplicates, storm
from faults.letters import Post
from faults.sites import site

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

ON_SQLITE: Final = 600
ACROSS_BROKERS: Final = 400
KINDS: Final = {"copies", "the proof", "repeats", "bodies", "lost reply", "copy", "repeat", "another body"}


@pytest.mark.timeout(180)
def test_on_sqlite(tmp_path: Path) -> None:
    with site(tmp_path / "site", **LONG_LEASE) as at, Post() as post:
        made = Duplicates(at, post, 1)
        storm(made, ON_SQLITE)
        assert made.broken() == []
    assert made.pairs >= ON_SQLITE
    assert set(made.kinds) == KINDS


@pytest.mark.timeout(180)
def test_across_two_brokers(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with site(tmp_path / "site", brokers=2, database_url=url, **LONG_LEASE) as at, Post() as post:
        made = Duplicates(at, post, 2)
        storm(made, ACROSS_BROKERS)
        assert made.broken() == []
    assert made.pairs >= ACROSS_BROKERS
    assert {deed.verb for deed in made.deeds} == set(VERBS)
