"""What the commands about grants, the kill switch, workloads, people and secrets send, show and refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commandline import Done
from desk import Desk
from stepgrant._exchange import WorkloadKey
from stepgrant.cli import extensions
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Done]
GRANT: dict[str, Any] = {
    "jti": "grn_1", "status": "issued", "tool": "t", "step": "s", "attempt": 1, "epoch": 1, "issuer": "jwt",
    "audience": "a", "redeemed_at": None, "issued_at": 1, "expires_at": 2, "cause": None, "revocation": "confirmed",
}  # fmt: skip


def test_grants_are_listed(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/grants", {"grants": [GRANT], "next": None})
    assert "grn_1" in run("grant", "list", "--live", "--run", "run_1").out
    assert desk.sent[-1].query == {"run": "run_1", "live": "true", "limit": "50"}


def test_revoking_a_static_secret_says_what_it_cannot_do(run: Run, desk: Desk) -> None:
    desk.says("POST /v1/grants/grn_1/revoke", {**GRANT, "revocation": "none"})
    assert "its secret is static: change it where it is used" in run("grant", "revoke", "grn_1").out


def test_a_death_is_declared_only_when_it_is_meant(run: Run, desk: Desk) -> None:
    desk.says("POST /v1/grants/grn_1/declare-dead", {**GRANT, "status": "revoked"})
    assert run("grant", "declare-dead", "grn_1").code == ExitCode.USAGE
    assert desk.sent == []
    done = run("grant", "declare-dead", "grn_1", "--yes")
    assert done.out == "grn_1 is declared dead; nothing waits for its issuer any more\n"


@pytest.mark.parametrize("kind", ["run", "agent", "workload", "issuer"])
def test_kill_switch_of_each_kind(run: Run, desk: Desk, kind: str) -> None:
    desk.says("POST /v1/quarantine", {"kind": kind, "name": "run_x", "runs": ["run_x"]})
    desk.says("POST /v1/quarantine/release", {"kind": kind, "name": "run_x"})
    assert run("quarantine", kind, "run_x", "--yes").out == f"{kind} run_x is quarantined; 1 run taken back\n"
    assert run("quarantine", kind, "run_x", "--release").out.startswith(f"{kind} run_x is released")
    assert [one.body for one in desk.sent] == [{kind: "run_x"}] * 2


@pytest.mark.parametrize("kind", ["agent", "workload", "issuer"])
def test_a_name_is_blocked_beforehand_only_where_that_is_said(run: Run, desk: Desk, kind: str) -> None:
    desk.says("POST /v1/quarantine", {"kind": kind, "name": "later", "runs": []})
    assert run("quarantine", kind, "later", "--beforehand", "--yes").code == 0
    assert desk.sent[0].body == {kind: "later", "beforehand": True}
    assert run("quarantine", "run", "later", "--beforehand", "--yes").code == ExitCode.USAGE


def test_a_second_key_or_person_of_one_name_is_sent_only_where_that_is_said(run: Run, desk: Desk) -> None:
    desk.says("POST /v1/workloads", {"id": "wkl_2", "name": "w", "agents": ["a"], "audiences": []})
    assert run("workload", "enroll", "w", "--agent", "a", "--another-key").code == 0
    assert desk.sent[0].body["another_key"] is True
    person = {"id": "opr_2", "name": "ada", "roles": ["approver"], "groups": [], "token": "sgo_2"}
    desk.says("POST /v1/operators", person)
    assert run("operator", "create", "ada", "--role", "approver", "--another-token").code == 0
    assert desk.sent[1].body["another_token"] is True


def test_kill_switch_asks_first(run: Run, desk: Desk) -> None:
    assert run("quarantine", "agent", "billing").code == ExitCode.USAGE
    assert desk.sent == []


def test_thrown_switches_are_listed(run: Run, desk: Desk) -> None:
    thrown = {"kind": "agent", "name": "billing", "at": 1, "until": None}
    desk.says("GET /v1/quarantine", {"quarantines": [thrown, {**thrown, "name": "old", "until": 5}]})
    printed = run("quarantine", "list").out
    assert "billing" in printed
    assert "old" not in printed


def test_enrolling_sends_the_public_key_and_keeps_the_private_one(run: Run, desk: Desk, tmp_path: Path) -> None:
    enrolled = {"id": "wkl_1", "name": "worker 1", "agents": ["billing"], "audiences": []}
    desk.says("POST /v1/workloads", enrolled)
    done = run("workload", "enroll", "worker 1", "--agent", "billing")
    path = tmp_path / "worker-1.key.json"
    assert path.stat().st_mode & 0o777 == 0o600
    key = WorkloadKey.load(path)
    sent = desk.sent[0].body
    assert sent == {"name": "worker 1", "jwk": key.public_jwk, "agents": ["billing"], "audiences": []}
    assert "d" not in sent["jwk"]
    secret = json.loads(path.read_text(encoding="utf-8"))["jwk"]["d"]
    assert secret not in done.out
    assert f"export STEPGRANT_WORKLOAD_KEY={path}" in done.out


def test_existing_key_file_is_kept_and_nothing_is_enrolled(run: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "w.key.json").write_text("mine", encoding="utf-8")
    assert run("workload", "enroll", "w", "--agent", "a").code == ExitCode.USAGE
    assert desk.sent == []
    assert (tmp_path / "w.key.json").read_text(encoding="utf-8") == "mine"


def test_key_that_cannot_be_saved_is_enrolled_for_nobody(run: Run, desk: Desk, tmp_path: Path) -> None:
    desk.says("POST /v1/workloads", {"id": "wkl_1", "name": "w", "agents": ["a"], "audiences": []})
    desk.says("DELETE /v1/workloads/wkl_1", {"id": "wkl_1"})
    path = tmp_path / "w.key.json"
    desk.meanwhile["POST /v1/workloads"] = lambda: path.write_text("somebody else's", encoding="utf-8")
    assert run("workload", "enroll", "w", "--agent", "a").code == ExitCode.USAGE
    assert desk.calls() == ["POST /v1/workloads", "DELETE /v1/workloads/wkl_1"]
    assert path.read_text(encoding="utf-8") == "somebody else's"


def test_workload_serves_or_acts(run: Run, desk: Desk) -> None:
    assert run("workload", "enroll", "w").code == ExitCode.USAGE
    assert desk.sent == []


def test_workloads_are_listed_and_removed(run: Run, desk: Desk) -> None:
    listed = {"id": "wkl_1", "name": "w", "kind": "enrolled_key", "agents": ["a"], "audiences": [], "enrolled_at": 1,
              "removed_at": None}  # fmt: skip
    desk.says("GET /v1/workloads", {"workloads": [listed]})
    desk.says("DELETE /v1/workloads/wkl_1", listed)
    assert "wkl_1" in run("workload", "list").out
    assert run("workload", "remove", "wkl_1", "--yes").out == "workload wkl_1 is removed\n"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_new_token_is_in_a_private_file_and_nowhere_else(run: Run, desk: Desk, tmp_path: Path, more: list[str]) -> None:
    token = "sgo_" + "77" * 32
    created = {"id": "opr_1", "name": "Ada L", "roles": ["approver"], "groups": ["finance"], "token": token}
    desk.says("POST /v1/operators", created)
    done = run("operator", "create", "Ada L", "--role", "approver", "--group", "finance", *more)
    assert done.code == 0
    assert token not in done.out + done.err
    path = tmp_path / "Ada-L.client.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text(encoding="utf-8")) == {"url": desk.url, "token": token}
    assert desk.sent[0].body == {"name": "Ada L", "roles": ["approver"], "groups": ["finance"]}


def test_nobody_is_created_whose_token_has_no_place(run: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "ada.client.json").write_text("mine", encoding="utf-8")
    assert run("operator", "create", "ada", "--role", "approver").code == ExitCode.USAGE
    assert desk.sent == []


@pytest.mark.usefixtures("desk")
def test_local_creation_needs_the_broker(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stepgrant.cli.app.importlib.metadata.entry_points", lambda **_: ())
    monkeypatch.setattr(extensions, "create_operator", None)
    done = run("operator", "create", "root", "--role", "operator", "--local")
    assert done.code == ExitCode.USAGE
    assert "pip install 'stepgrant[broker,embedded]'" in done.err
    assert not (tmp_path / "root.client.json").exists()


def test_people_are_listed_and_removed(run: Run, desk: Desk) -> None:
    listed = {"id": "opr_1", "name": "Ada", "roles": ["operator"], "groups": [], "created_at": 1, "removed_at": None}
    desk.says("GET /v1/operators", {"operators": [listed]})
    desk.says("DELETE /v1/operators/opr_1", listed)
    assert "Ada" in run("operator", "list").out
    assert run("operator", "remove", "opr_1", "--yes").out == "Ada is removed\n"


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))


@pytest.mark.parametrize("data", [b"s3cret-value", b"s3cret-value\n", b"s3cret-value\r\n"])
def test_secret_comes_from_stdin_and_is_never_shown(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    typed(monkeypatch, data)
    desk.says("PUT /v1/secrets/crm", {"name": "crm", "hosts": ["api.crm.example"], "header": "X-Key", "set_at": 1})
    done = run("secret", "set", "crm", "--host", "api.crm.example", "--header", "X-Key")
    assert done.code == 0
    assert "s3cret" not in done.out + done.err
    assert desk.sent[0].body == {"value": "s3cret-value", "hosts": ["api.crm.example"], "header": "X-Key"}


@pytest.mark.parametrize("data", [b"", b"\n", b"s3cret\xff", b"s3cret" * 20_000])
def test_secret_that_is_none_is_refused_without_showing_it(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    typed(monkeypatch, data)
    done = run("secret", "set", "crm", "--host", "h")
    assert (done.code, desk.sent) == (ExitCode.USAGE, [])
    assert "s3cret" not in done.err


def test_secret_that_the_broker_refuses_is_not_shown(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"s3cret")
    desk.refuses("PUT /v1/secrets/crm", 403, "forbidden")
    done = run("secret", "set", "crm", "--host", "h")
    assert done.code == ExitCode.AUTH
    assert "s3cret" not in done.err


def test_secret_can_be_no_argument(run: Run, desk: Desk) -> None:
    assert run("secret", "set", "crm", "s3cret", "--host", "h").code == ExitCode.USAGE
    assert desk.sent == []
