"""Like failures end with like exit codes, whatever command meets them; a script has one table to read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from commandline import Done
from desk import Desk
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Done]


@pytest.mark.parametrize(
    "words",
    [
        ["receipt", "verify", "gone", "--key", "gone"],
        ["receipt", "show", "gone", "--key", "gone"],
        ["run", "list", "--client", "gone"],
        ["policy", "check", "gone"],
        ["policy", "eval", "--policy", "policy", "--input", "gone"],
        ["policy", "build", "policy", "--out", "b.tar.gz", "--signing-key", "gone"],
        ["ledger", "verify", "--known-head", "gone"],
        ["ledger", "verify", "--log-policy", "gone"],
        ["dev", "--policy", "gone"],
    ],
)
def test_a_file_or_folder_that_is_not_there_is_not_found(run: Run, desk: Desk, words: list[str]) -> None:
    assert run("init", ".").code == 0
    assert (run(*words).code, desk.sent) == (ExitCode.NOT_FOUND, [])


@pytest.mark.parametrize(
    "words",
    [
        ["init", "there"],
        ["policy", "show", "1", "--out", "there"],
        ["workload", "enroll", "w", "--agent", "a", "--out", "there/README.md"],
        ["operator", "create", "ada", "--role", "approver", "--out", "there/README.md"],
        ["receipt", "get", "run_1", "--out", "there/README.md"],
    ],
)
def test_a_file_in_the_way_is_usage_and_stays(run: Run, desk: Desk, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "README.md").write_text("mine", encoding="utf-8")
    desk.says("GET /v1/policies", {"policies": [{"revision": "1:sha-256:x", "active": True, "activated_at": 1}]})
    desk.says("GET /v1/policies/1:sha-256:x", {"revision": "1:sha-256:x", "text": {"a.rego": "package a"}})
    assert run(*words).code == ExitCode.USAGE
    assert (tmp_path / "there" / "README.md").read_text(encoding="utf-8") == "mine"
    assert [one.method for one in desk.sent if one.method != "GET"] == []


def test_a_port_that_is_taken_is_usage(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("dev", "--port", port).code == ExitCode.USAGE
        monkeypatch.setenv("STEPGRANT_BROKER_PORT", port)
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
        assert run("serve").code == ExitCode.USAGE
