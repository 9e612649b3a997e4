"""A whole broker on PostgreSQL: an agent's run, a restart in between, and every local command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

import stepgrant
from clerks import SETTINGS
from commandline import Done, caller
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.config import SettingsError, explicit_settings
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.testing import TestHost, start
from stepgrant_broker.wiring import build, check_database, prepare

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

Run = Callable[..., Done]


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database()


@pytest.fixture
def run(
    url: str, postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:  # fmt: skip
    """A command line on the broker's host, which never prints the database's password."""
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", url)
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return caller(capsys, [postgres_server.password])


def agent(host: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_URL", host.url)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(host.enroll("clerks", agents=["clerk"])))


def test_an_agent_works_and_its_ledger_holds(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker ends and starts again on the same database; what was done is not done again."""
    done: list[int] = []

    def look(number: int) -> int:
        done.append(number)
        return number

    tool = stepgrant.tool(name="book.read", effect="read", step_id="look-{number}")(look)
    with start(tmp_path / "broker", settings=SETTINGS, database_url=url) as host:
        agent(host, monkeypatch)
        assert isinstance(host.call(_store), PostgresStore)
        with stepgrant.run("job", agent="clerk") as first:
            assert [tool(number) for number in (1, 2)] == [1, 2]
        assert host.ledger_findings() == []
    with start(tmp_path / "broker", settings=SETTINGS, database_url=url) as host:
        monkeypatch.setenv("STEPGRANT_URL", host.url)
        with stepgrant.run("other", agent="clerk"):
            assert tool(3) == 3
        assert done == [1, 2, 3]
        assert {one.key for one in host.runs()} == {"job", "other"}
        assert host.ledger_findings() == []
        assert len(host.entries(first.id)) > 6
    assert list((tmp_path / "broker").glob("*.db*")) == []


async def _store(broker: object) -> object:
    return getattr(broker, "store", None)


def test_the_database_by_command_line(run: Run, url: str) -> None:
    missing = run("db", "check")
    assert (missing.code, "stepgrant db migrate" in missing.err) == (ExitCode.UNAVAILABLE, True)
    assert [run("db", "migrate").code for _ in range(2)] == [0, 0]
    shown = run("db", "check", "--json").json["database"]
    assert shown == f"postgresql://{url.rpartition('@')[2]}"
    assert run("operator", "create", "root", "--role", "approver", "--local").code == 0
    good = run("ledger", "verify", "--json")
    assert (good.code, good.json["ok"], good.json["entries"]) == (0, True, 1)
    with psycopg.connect(url) as db:
        db.execute("UPDATE operators SET roles = %s", ('["operator"]',))
    bad = run("ledger", "verify")
    assert (bad.code, "row_differs" in bad.out) == (ExitCode.REFUSED, True)


def test_keys_are_made_only_with_a_new_database(url: str, tmp_path: Path) -> None:
    """Another host that is given the database but not the keys is refused: its broker could not read the ledger."""
    first = explicit_settings(data_dir=tmp_path / "first", database_url=url)
    second = explicit_settings(data_dir=tmp_path / "second", database_url=url)
    with pytest.raises(StoreUnavailable, match="empty"):
        prepare(first, create=False)
    assert not (tmp_path / "first").exists()
    prepare(first, create=True)
    check_database(second)
    prepare(second, create=True)
    assert not (tmp_path / "second").exists()


async def test_two_brokers_share_one_database(url: str, tmp_path: Path) -> None:
    options = {"keys_dir": tmp_path / "keys", "database_url": url, "sweep_ms": 600_000, "log_level": "error"}
    one = explicit_settings(data_dir=tmp_path / "one", **options)
    other = explicit_settings(data_dir=tmp_path / "other", **options)
    async with build(one, create=True) as first, build(other) as second:
        assert await first.tenants() == await second.tenants()
        assert first.policy.revision == second.policy.revision
        assert [str(finding) async for finding in second.ledger_check().findings()] == []


@pytest.mark.parametrize("wrong", ["mysql://x/y", "sqlite://", "postgres:"])
def test_another_database_is_refused_by_name(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sqlite:///path/to/file or postgresql://user:password@host/database"):
        prepare(explicit_settings(data_dir=tmp_path, database_url=wrong), create=True)


def test_without_its_extra_it_says_what_to_install(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"pip install 'stepgrant\[postgres\]'"):
        prepare(explicit_settings(data_dir=tmp_path, database_url=url), create=True)
