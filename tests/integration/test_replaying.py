"""Decisions of a real OPA over a real PostgreSQL are made again by the `opa` program, and parked runs asked ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clerks import SETTINGS, People
from commandline import Done, caller
from opas import Serve, serving
from replays import ask_no_more, asked, folder, work
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.testing import TestHost, start
from stepgrant_broker.wiring import starter_with

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

Run = Callable[..., Done]
REPLAY = ("decision", "replay", "--json")


@pytest.fixture
def host(
    opa_server: Serve,
    opa_binary: Path,
    postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TestHost]:
    """A broker on OPA and PostgreSQL, and the environment of its agent and of its people, who have the program too."""
    url = postgres_server.create_database()
    with (
        serving(opa_server, starter_with(SETTINGS), tmp_path) as opa,
        start(
            tmp_path / "broker", settings=SETTINGS, lease_s=3, database_url=url, policy_engine="opa", opa_url=opa.url
        ) as running,
    ):
        monkeypatch.setenv("STEPGRANT_URL", running.url)
        monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(running.enroll("clerks", agents=["clerk"])))
        monkeypatch.setenv("STEPGRANT_OPA", str(opa_binary))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
        monkeypatch.chdir(tmp_path)
        yield running


def test_a_parked_run_is_asked_ahead_and_then_its_record_made_again(
    host: TestHost, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    people = People(host, tmp_path)
    root = ["--client", people.file("root", "operator", "approver", groups=("press",))]
    run = caller(capsys, people.tokens)
    approval = asked()
    before = [(one.seq, one.epoch) for one in host.runs()]

    # What a candidate would say next, before anything is promoted.
    report = run("policy", "preflight", folder(tmp_path, ask_no_more()), "--json", *root).json
    (publishing,) = (one for one in report["actions"] if one["step"] == "publish")
    assert (report["engine"][:5], report["runs"]) == ("opa/1", 1)
    assert (publishing["now"]["effect"], publishing["candidate"]["effect"]) == ("require_approval", "allow")
    assert [(one["approval"], one["candidate"]) for one in publishing["approvals"]] == [(approval, "not_needed")]
    assert [(one.seq, one.epoch) for one in host.runs()] == before

    # The person says yes, the run comes back, and all of it can be made again: on OPA, for the decisions were OPA's.
    assert run("approval", "approve", approval, "--yes", *root).code == 0
    work("order-1")
    made = run(*REPLAY, "--since", "2020-01-01", *root)
    assert (made.code, made.json["holds"], made.json["equal"], made.json["decisions"]) == (0, True, 5, 5)
    told = run(*REPLAY, "--run", "order-1", "--candidate", folder(tmp_path, {**SETTINGS, "agents": {}}), *root).json
    assert {one["to"] for one in told["candidate"]["groups"]} == {"deny"}
    assert told["candidate"]["changed"] == 5

    # Without the program nothing takes OPA's place.
    monkeypatch.delenv("STEPGRANT_OPA")
    monkeypatch.setenv("PATH", str(tmp_path))
    without = run(*REPLAY, "--run", "order-1", *root)
    assert (without.code, without.json["not_replayable"], without.json["equal"]) == (ExitCode.REFUSED, 5, 0)
    assert {one["why"] for one in without.json["findings"]} == {"engine_missing"}
    assert {str(one["engine"])[:5] for one in without.json["findings"]} == {"opa/1", "None"}
