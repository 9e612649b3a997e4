"""The broker as a service: database, first person, serving, and checking its ledger."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from commandline import Done, caller
from processes import started
from stepgrant.cli.exits import ExitCode

pytestmark = pytest.mark.timeout(240)  # a process of its own may have to wait for a busy machine
Run = Callable[..., Done]
CREATE = ["operator", "create", "root", "--role", "operator", "--local"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a broker of its own, in the environment."""
    known = {"STEPGRANT_BROKER_DATA_DIR": str(tmp_path / "data"), "STEPGRANT_BROKER_PORT": "0"}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return known


@pytest.fixture
def run(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line on the broker's host."""
    assert settings
    return caller(capsys, [])


def test_from_nothing_to_a_person_who_can_call(
    run: Run, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run("serve")
    assert (missing.code, "stepgrant db migrate" in missing.err) == (ExitCode.UNAVAILABLE, True)
    assert run("db", "check").code == ExitCode.UNAVAILABLE
    assert [run("db", "migrate").code for _ in range(2)] == [0, 0]
    assert run("db", "check").code == 0
    with started(tmp_path, tmp_path / "serve.log", "serve", "--json", **settings) as broker:
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", broker.wait_for(r'"url": "(http://127\.0\.0\.1:\d+)"')[1])
        created = run(*CREATE)
        token = json.loads((tmp_path / "root.client.json").read_text(encoding="utf-8"))["token"]
        assert (created.code, token in created.out + created.err) == (0, False)
        listed = run("operator", "list", "--json", "--client", "root.client.json")
        assert [one["name"] for one in listed.json["operators"]] == ["root"]
        broker.process.send_signal(signal.SIGTERM)
        assert broker.ended() == 0
        assert token not in broker.text


def test_local_command_does_not_change_what_a_running_broker_decides_by(
    run: Run, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("db", "migrate")
    run("init", "project")
    with started(tmp_path, tmp_path / "serve.log", "serve", "--json", **settings) as broker:
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", broker.wait_for(r'"url": "(http://127\.0\.0\.1:\d+)"')[1])
        monkeypatch.setenv("STEPGRANT_BROKER_POLICY_DIR", "project/policy")
        assert run(*CREATE).code == 0
        assert run("ledger", "verify").code == 0
        assert len(run("policy", "list", "--json", "--client", "root.client.json").json["policies"]) == 1


def test_changed_ledger_is_found(run: Run, tmp_path: Path) -> None:
    run("db", "migrate")
    assert run("operator", "create", "root", "--role", "approver", "--local").code == 0
    good = run("ledger", "verify", "--json")
    assert (good.code, good.json["ok"], good.json["entries"]) == (0, True, 1)
    with sqlite3.connect(tmp_path / "data" / "stepgrant.db") as database:
        (table,) = database.execute("SELECT name FROM sqlite_master WHERE name LIKE '%operators'").fetchone()
        database.execute(f"UPDATE {table} SET roles = ?", ('["operator"]',))  # noqa: S608 - our own table
    database.close()
    bad = run("ledger", "verify")
    assert bad.code == ExitCode.REFUSED
    assert "row_differs" in bad.out
    assert "1 finding" in bad.out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HOST", "0.0.0.0", "STEPGRANT_BROKER_PROXY_TERMINATES_TLS=true"),  # noqa: S104 - that it is refused
        ("PRT", "1", "did you mean STEPGRANT_BROKER_PORT?"),
        ("PORT", "many", "STEPGRANT_BROKER_PORT"),
        ("FAILPOINTS", "usecase.before_commit=kill", "STEPGRANT_BROKER_TEST_MODE"),
        ("TENANT", "No!", "STEPGRANT_BROKER_TENANT"),
    ],
)
def test_wrong_settings_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"STEPGRANT_BROKER_{name}", value)
    done = run("serve")
    assert (done.code, done.out, words in done.err) == (ExitCode.USAGE, "", True)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_listed_with_what_they_trust(run: Run) -> None:
    listed = run("settings", "--json").json["settings"]
    assert {one["name"]: one["default"] for one in listed}["STEPGRANT_BROKER_LEASE_MS"] == "30000"
    assert all(one["about"] for one in listed)
    assert "STEPGRANT_BROKER_DATA_DIR = .stepgrant" in run("settings").out
