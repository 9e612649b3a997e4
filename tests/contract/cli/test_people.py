"""The command line over the real broker: what people see and do while agents of the real SDK work."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import stepgrant
from clerks import People
from commandline import Done
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.testing import TestHost

Run = Callable[..., Done]


@stepgrant.tool(effect="read", name="book.read")
def read_book(title: str) -> str:
    return f"{title}, page one"


@stepgrant.tool(effect="once", name="file.publish", step_id="publish", resource="web/{name}")
def publish(name: str) -> str:
    return f"https://web.example/{name}"


@stepgrant.tool(effect="once", name="card.charge", step_id="charge")
def charge(amount: int) -> str:
    raise ConnectionError(f"no answer for {amount}")


def work(key: str) -> str:
    """One try of the agent, as a process of its own would make it."""
    with stepgrant.run(key, agent="clerk") as run:
        stepgrant.step("plan", lambda: ["read", "publish"], step_id="plan")
        read_book.with_id("book")("Emma")
        run.result = publish("emma")
        return str(run.result)


def asked(key: str = "order-1") -> str:
    with pytest.raises(stepgrant.ApprovalRequired) as needed:
        work(key)
    return str(needed.value.approval_id)


def charge_twice(key: str) -> None:
    with stepgrant.run(key, agent="clerk"):
        with pytest.raises(ConnectionError):
            charge(100)
        charge(100)


def in_doubt(key: str = "order-2") -> None:
    with pytest.raises(stepgrant.InDoubt):
        charge_twice(key)


def test_approval_is_seen_answered_and_told(host: TestHost, run: Run, root: list[str]) -> None:
    approval, titled = asked(), "tool_needs_approval (This tool always needs a person)"
    listed = run("approval", "list", *root)
    assert [word in listed.out for word in (approval, "file.publish", "press", titled)] == [True] * 4
    shown = run("approval", "show", approval, *root)
    for words in ("web/emma", '"name": "emma"', titled, "order-1", "sha-256:", "issuer parameters",
                  "it is the digest of exactly this"):  # fmt: skip
        assert words in shown.out
    digest = run("approval", "show", approval, "--json", *root).json["digest"]
    done = run("approval", "approve", approval, "--digest", digest, "--note", "reads well", "--yes", *root)
    assert titled in done.out
    assert done.out.endswith(f"{approval} is approved\n")
    settled = run("approval", "list", "--status", "all", *root)
    assert [word in settled.out for word in (approval, "approved", titled)] == [True] * 3
    assert work("order-1") == "https://web.example/emma"
    told = run("run", "show", "order-1", *root).out
    for words in ("root approved it after", "saying reads well", "a person must say yes: tool_needs_approval",
                  "parked by its holder: a person has to answer first", "completed: https://web.example/emma",
                  "2 finished steps kept, not run again: plan, book", "verified: "):  # fmt: skip
        assert words in told
    as_json = run("run", "show", "--json", *root).json
    assert (as_json["key"], as_json["state"], as_json["verified"]) == ("order-1", "completed", True)
    assert host.ledger_findings() == []


def test_other_digest_is_refused_by_the_broker_too(run: Run, root: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    approval = asked()
    real = "stepgrant.cli.cmd_approvals._get"
    shown = run("approval", "show", approval, "--json", *root).json
    monkeypatch.setattr(real, lambda *_: {**shown, "digest": "sha-256:" + "A" * 43})
    done = run("approval", "approve", approval, "--yes", "--json", *root)
    assert done.code == ExitCode.REFUSED
    assert "digest_mismatch" in done.err
    monkeypatch.undo()


@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_nobody_answers_what_is_not_what_he_is_shown(
    host: TestHost, run: Run, root: list[str], monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    approval = asked()
    shown = run("approval", "show", approval, "--json", *root).json
    for told in (
        {"action": {**shown["action"], "args": {"name": "a harmless one"}}},
        {"bound": {**shown["bound"], "params": {"secret": "a harmless one"}}},
        {"issuer": "jwt-of-little-worth"},
        {"resume": {"run": shown["run"], "subject": "somebody harmless"}},
    ):
        monkeypatch.setattr("stepgrant.cli.cmd_approvals._get", lambda *_, told=told: {**shown, **told})
        seen = run("approval", "show", approval, *root)
        assert "NOT the digest of what is shown" in seen.out
        done = run("approval", verdict, approval, "--yes", "--json", *root)
        assert (done.code, done.out) == (ExitCode.REFUSED, "")
        assert "digest_mismatch" in done.err
    monkeypatch.undo()
    after = run("approval", "show", approval, "--json", *root).json
    assert (after["status"], after["answers"]) == ("pending", [])
    assert host.ledger_findings() == []


def test_only_no_is_said_to_what_cannot_be_shown_any_more(
    run: Run, root: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older broker kept only the digest of what it asked."""
    approval = asked()
    shown = run("approval", "show", approval, "--json", *root).json
    monkeypatch.setattr("stepgrant.cli.cmd_approvals._get", lambda *_: {**shown, "bound": None})
    refused = run("approval", "approve", approval, "--yes", *root)
    assert refused.code == ExitCode.REFUSED
    assert "older broker" in refused.err
    assert run("approval", "deny", approval, "--yes", *root).out.endswith(f"{approval} is denied\n")


def test_denial_stands(run: Run, root: list[str]) -> None:
    approval = asked()
    assert run("approval", "deny", approval, "--yes", *root).code == 0
    with pytest.raises(stepgrant.Denied, match="approval_denied"):
        work("order-1")
    again = run("approval", "approve", approval, "--yes", *root)
    assert again.code == ExitCode.CONFLICT


def test_who_may_not_answer_is_told_why(run: Run, people: People, root: list[str]) -> None:
    approval = asked()
    operator = people.file("olga", "operator")
    stranger = people.file("sam", "approver")
    for client, words in ((operator, "role approver"), (stranger, "an approver of press")):
        done = run("approval", "approve", approval, "--yes", "--client", client, "--json")
        assert done.code == ExitCode.AUTH
        assert words in done.err
    assert run("approval", "show", "apr_nothing", *root).code == ExitCode.NOT_FOUND
    assert run("approval", "show", approval, "--json", *root).json["status"] == "pending"


def test_doubt_is_settled_by_a_person(run: Run, root: list[str]) -> None:
    in_doubt()
    shown = run("step", "show", "order-2", "charge", *root).out
    assert "it may have happened: the tool raised an error" in shown
    assert "card.charge" in run("step", "list", "order-2", *root).out
    words = ["step", "reconcile", "order-2", "charge", "done", "--result", '"ch_7"', "--evidence", "bank", "--yes"]
    assert run(*words, *root).out.endswith("step charge is completed now\n")
    assert run(*words, *root).code == ExitCode.CONFLICT
    with stepgrant.run("order-2", agent="clerk"):
        assert charge(100) == "ch_7"
    assert "doubt settled: root: it had happened" in run("run", "show", "order-2", *root).out


def test_grants_are_listed_and_revoked(run: Run, root: list[str]) -> None:
    asked()
    (grant,) = run("grant", "list", "--run", "order-1", "--json", *root).json["grants"]
    assert (grant["tool"], grant["status"]) == ("book.read", "revoked")
    assert run("grant", "revoke", grant["jti"], *root).out == f"{grant['jti']} is revoked\n"
    assert run("grant", "revoke", "grn_nothing", *root).code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("kind", ["run", "agent"])
def test_kill_switch_stops_an_agent_until_it_is_lifted(run: Run, root: list[str], kind: str) -> None:
    asked()
    name = "order-1" if kind == "run" else "clerk"
    assert run("quarantine", kind, name, "--yes", *root).code == 0
    with pytest.raises(stepgrant.errors.Quarantined):
        work("order-1")
    if kind == "agent":
        assert "clerk" in run("quarantine", "list", *root).out
    assert run("quarantine", kind, name, "--release", *root).code == 0
    if kind == "agent":
        run("quarantine", "run", "order-1", "--release", *root)
    asked()
    assert "threw the kill switch" in run("run", "show", "order-1", *root).out


def test_cancelled_run_is_over(run: Run, root: list[str]) -> None:
    asked()
    assert "cancelled" in run("run", "cancel", "order-1", "--yes", *root).out
    assert run("run", "cancel", "order-1", "--yes", *root).code == ExitCode.CONFLICT
    with pytest.raises(stepgrant.errors.RunEnded):
        work("order-1")
    listed = run("run", "list", "--state", "cancelled", "--json", *root).json["runs"]
    assert [one["key"] for one in listed] == ["order-1"]


def test_enrolled_key_works_until_it_is_removed(
    run: Run, root: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = run("workload", "enroll", "late", "--agent", "clerk", "--json", *root)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(tmp_path / "late.key.json"))
    asked("late-1")
    assert run("workload", "remove", done.json["id"], "--yes", *root).code == 0
    with pytest.raises(stepgrant.errors.AuthenticationFailed):
        work("late-1")


def test_new_person_can_do_what_the_role_says(run: Run, root: list[str], people: People, tmp_path: Path) -> None:
    created = run("operator", "create", "ada", "--role", "approver", "--group", "press", "--json", *root).json
    client = ["--client", str(tmp_path / "ada.client.json")]
    people.tokens.append(json.loads((tmp_path / "ada.client.json").read_text())["token"])
    assert run("run", "list", *client).code == 0
    assert run("operator", "create", "eve", "--role", "operator", *client).code == ExitCode.AUTH
    assert not (tmp_path / "eve.client.json").exists()
    assert run("operator", "remove", created["id"], "--yes", *root).code == 0
    gone = run("run", "list", *client)
    assert gone.code == ExitCode.AUTH
    assert "does not know the token" in gone.err


def test_secret_is_kept_and_never_shown(
    run: Run, root: list[str], host: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "s3cret-" + "q" * 20
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(value.encode()), isatty=lambda: False))
    assert run("secret", "set", "crm", "--host", "api.crm.example", *root).code == 0
    listed = run("secret", "list", "--json", *root)
    assert [one["name"] for one in listed.json["secrets"]] == ["crm"]
    assert value not in listed.out
    assert value.encode() not in host.settings.database_file.read_bytes()
    assert run("secret", "remove", "crm", "--yes", *root).code == 0
    assert run("secret", "remove", "crm", "--yes", *root).code == ExitCode.NOT_FOUND


def test_evidence_outlives_the_broker(run: Run, root: list[str], host: TestHost, tmp_path: Path) -> None:
    host.approve(asked())
    assert run("receipt", "get", "order-1", "--out", "early.json", *root).code == 0
    work("order-1")
    assert run("receipt", "get", "order-1", "--out", "r.json", *root).code == 0
    assert run("ledger", "keys", "--out", "k.json", *root).code == 0
    assert run("receipt", "get", "order-1", "--step", "publish", "--out", "s.json", "--html", "s.html", *root).code == 0
    host.close()
    done = run("receipt", "verify", "r.json", "--key", "k.json", "--earlier", "early.json", "--show")
    assert done.code == 0
    assert "It is complete" in done.out
    assert "It continues the earlier receipt" in done.out
    shown = run("receipt", "show", "r.json", "--key", "k.json", "--policies", "--html", "r.html")
    assert "Missing" not in shown.out
    assert "package stepgrant" in shown.out
    pages = {name: (tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("r", "s")}
    assert all("approved it at" in page and "package stepgrant" in page for page in pages.values())
    assert "what else the run did is not in it" in run("receipt", "show", "s.json", "--key", "k.json").out
    data = (tmp_path / "r.json").read_bytes()
    (tmp_path / "bad.json").write_bytes(data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
    assert run("receipt", "verify", "bad.json", "--key", "k.json").code == ExitCode.REFUSED
    unreachable = run("run", "list", *root)
    assert unreachable.code == ExitCode.UNAVAILABLE


def test_policy_explains_what_it_decided(run: Run, root: list[str]) -> None:
    asked()
    told = run("policy", "explain", "order-1", "publish", *root).out
    assert "step publish: policy ASKED A PERSON" in told
    assert "because tool_needs_approval" in told
    assert "This tool always needs a person" in told
    assert "input.action.tool = file.publish" in told
    opened = run("policy", "explain", "order-1", "--json", *root).json
    assert opened["recorded"]["step"] == "publish"
    (policy,) = run("policy", "list", "--json", *root).json["policies"]
    assert policy["active"] is True
    assert run("policy", "show", "1", "--out", "kept", *root).code == 0
    assert run("policy", "check", "kept").code == 0
    again = run("policy", "eval", "--run", "order-1", "--step", "publish", "--policy", "kept", *root)
    assert again.json["effect"] == "require_approval"
    assert run("policy", "explain", "order-1", "nothing", *root).code == ExitCode.NOT_FOUND


def test_policy_of_today_is_tried_on_a_decision_of_yesterday(run: Run, root: list[str]) -> None:
    asked()
    starter = run("policy", "eval", "--run", "order-1", "--step", "publish", *root).json
    assert (starter["effect"], starter["reasons"]) == ("deny", ["agent_not_listed"])


def test_unknown_token_is_one_line(run: Run, host: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_TOKEN", "sgo_" + "0" * 64)
    done = run("run", "list")
    assert done.code == ExitCode.AUTH
    assert host.url in done.err
