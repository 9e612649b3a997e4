"""What each command sends, shows and refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stories import Run as Story
from stories import eventful

from stepgrant._exchange import WorkloadKey
from stepgrant.canonical import dumps
from stepgrant.cli import extensions
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Any]
RUN: dict[str, Any] = {
    "id": "run_1", "key": "order-1729", "agent": "billing", "state": "open", "epoch": 1, "steps": 2, "opened_at": 1,
    "ended_at": None,
}  # fmt: skip
ASKED: dict[str, Any] = {
    "id": "apr_1", "run": "run_1", "step": "publish", "tool": "report.publish", "effect": "once", "issuer": "jwt",
    "status": "pending", "groups": ["editors"], "quorum": 1, "requested_at": 1, "answer_by": 2, "valid_for_ms": 900_000,
    "reasons": ["tool_needs_approval"], "why_again": "policy_stricter", "settled_at": None, "consumed_by": None,
    "answers": [{"operator": "opr_9", "verdict": "approve", "at": 1}], "digest": "sha-256:shown",
    "action": {"tool": "report.publish", "resource": "web", "args": {"text": "paid \u202e\x1b[2J"}},
    "run_facts": {"agent": "billing", "key": "order-1729", "state": "parked"},
}  # fmt: skip
STEP: dict[str, Any] = {
    "key": "charge", "recorded": False, "tool": "card.charge", "resource": None, "effect": "once", "state": "in_doubt",
    "attempt": 2, "epoch": 3, "position": 1, "parent": None, "idempotency_key": "sg-1", "grant": "grn_1",
    "approval": None, "result": {"a": 1}, "withheld": False, "failure": None, "error": None, "doubt": "fenced",
    "doubt_since": 5, "reconciles": 0,
}  # fmt: skip
GRANT: dict[str, Any] = {
    "jti": "grn_1", "status": "issued", "tool": "t", "step": "s", "attempt": 1, "epoch": 1, "issuer": "jwt",
    "audience": "a", "redeemed_at": None, "issued_at": 1, "expires_at": 2, "cause": None, "revocation": "confirmed",
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- what is sent


def test_reading_sends_the_token_in_its_header_and_no_key(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN], "next": None})
    done = run("run", "list", "--agent", "billing", "--state", "open", "--limit", "7")
    assert done.code == 0
    assert "order-1729" in done.out
    (sent,) = desk.sent
    assert sent.query == {"agent": "billing", "state": "open", "limit": "7"}
    assert sent.headers["authorization"].startswith("Bearer sgo_")
    assert "idempotency-key" not in sent.headers


def test_each_change_has_a_key_of_its_own(run: Run, desk: Any) -> None:
    desk.says("POST /v1/grants/grn_1/revoke", GRANT)
    assert [run("grant", "revoke", "grn_1").code for _ in range(2)] == [0, 0]
    keys = [one.headers["idempotency-key"] for one in desk.sent]
    assert len(set(keys)) == 2
    assert all(len(key) >= 20 for key in keys)


@pytest.mark.parametrize("name", ["../operators", "a/b", "..", "", "x" * 600, "a\nb", "a?b=c"])
def test_name_stays_one_part_of_the_path(run: Run, desk: Any, name: str) -> None:
    done = run("secret", "remove", "--yes", "--", name)
    assert done.code in {ExitCode.USAGE, ExitCode.NOT_FOUND}
    assert all(one.path.count("/") == 3 for one in desk.sent)
    assert all(one.query == {} for one in desk.sent)


def test_list_is_read_to_its_end(run: Run, desk: Any) -> None:
    desk.answers["GET /v1/approvals"] = [
        (200, {"approvals": [ASKED], "next": "c1"}, {}),
        (200, {"approvals": [{**ASKED, "id": "apr_2"}], "next": None}, {}),
    ]
    done = run("approval", "list", "--json")
    assert [one["id"] for one in done.json["approvals"]] == ["apr_1", "apr_2"]
    assert [one.query.get("after") for one in desk.sent] == [None, "c1"]
    assert {one.query["status"] for one in desk.sent} == {"pending"}


# ------------------------------------------------------------------------------------------------------------------ runs


def test_run_is_found_by_its_key(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs", {"runs": [{**RUN, "key": "other", "id": "run_0"}, RUN], "next": None})
    desk.says("POST /v1/runs/run_1/cancel", {"run": "run_1", "state": "cancelled"})
    done = run("run", "cancel", "order-1729", "--yes")
    assert done.out == "run_1 is cancelled; this is final\n"
    assert desk.sent[-1].body == {}


def test_key_of_two_runs_and_of_none(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN, {**RUN, "id": "run_2", "agent": "other"}], "next": None})
    done = run("run", "cancel", "order-1729", "--yes")
    assert done.code == ExitCode.USAGE
    assert "run_1 (billing), run_2 (other)" in done.err
    assert run("run", "cancel", "order-1", "--yes").code == ExitCode.NOT_FOUND
    assert not [one for one in desk.sent if one.method == "POST"]


def receipt_at(desk: Any, run_id: str, story: Story) -> None:
    desk.says(f"GET /v1/runs/{run_id}/receipt", story.receipt())
    desk.says("GET /v1/ledger/keys", story.book.jwks)


def test_newest_run_is_shown_as_its_timeline(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN], "next": "x"})
    receipt_at(desk, "run_1", eventful())
    done = run("run", "show")
    assert done.code == 0
    assert "Ada Lovelace approved it after 1 min" in done.out
    assert "verified: 30 entries chained, head signed by head-key" in done.out
    as_json = run("run", "show", "run_1", "--json").json
    assert (as_json["state"], as_json["verified"]) == ("completed", True)


def test_what_a_broker_tells_is_checked_too(run: Run, desk: Any) -> None:
    story = eventful()
    value = story.receipt()
    value["entries"].pop(3)
    desk.says("GET /v1/runs/run_1/receipt", value)
    desk.says("GET /v1/ledger/keys", story.book.jwks)
    done = run("run", "show", "run_1")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert "entry_out_of_order" in done.err


def test_no_runs_yet(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs", {"runs": [], "next": None})
    assert run("run", "show").code == ExitCode.NOT_FOUND
    assert run("run", "list").out == "no runs\n"


# ----------------------------------------------------------------------------------------------------------------- steps


def test_steps_are_listed_and_shown(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs/run_1/steps", {"steps": [STEP], "next": None})
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    assert "card.charge" in run("step", "list", "run_1").out
    shown = run("step", "show", "run_1", "charge").out
    assert "it may have happened: its holder was fenced before it could report" in shown
    assert '      "a": 1\n' in shown


def test_reconciling_sends_the_attempt_that_was_shown(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    desk.says("POST /v1/runs/run_1/steps/charge/reconcile", {**STEP, "state": "completed"})
    words = ["step", "reconcile", "run_1", "charge", "done", "--result", '{"id": "ch_7"}', "--evidence", "statement"]
    assert run(*words, "--yes").out.endswith("step charge is completed now\n")
    assert desk.sent[-1].body == {"verdict": "done", "result": {"id": "ch_7"}, "evidence": "statement", "attempt": 2}


@pytest.mark.parametrize(
    ("words", "code"),
    [(["not_done", "--result", "1"], 2), (["done", "--result", "{"], 2), (["done"], 2)],
)
def test_bad_reconciliation_sends_nothing(run: Run, desk: Any, words: list[str], code: int) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    assert run("step", "reconcile", "run_1", "charge", *words).code == code
    assert "POST" not in {one.method for one in desk.sent}


def test_step_that_is_not_in_doubt_is_not_reconciled(run: Run, desk: Any) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", {**STEP, "state": "completed"})
    done = run("step", "reconcile", "run_1", "charge", "done", "--yes")
    assert (done.code, desk.calls()) == (ExitCode.CONFLICT, ["GET /v1/runs/run_1/steps/charge"])


# ------------------------------------------------------------------------------------------------------------- approvals


def test_approval_shows_exactly_what_is_asked(run: Run, desk: Any) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    done = run("approval", "show", "apr_1")
    for words in ("report.publish", "web", "tool_needs_approval", "policy asks for more now", "sha-256:shown",
                  "run_1 (billing, order-1729, parked)", "1 of editors", "at most once", "approve by opr_9"):  # fmt: skip
        assert words in done.out
    assert '"text": "paid \\u202e\\u001b[2J"' in done.out


@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_answer_echoes_the_digest_that_was_shown(run: Run, desk: Any, verdict: str) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    desk.says("POST /v1/approvals/apr_1/decide", {**ASKED, "status": "approved"})
    done = run("approval", verdict, "apr_1", "--note", "fine", "--yes")
    assert done.out.endswith("apr_1 is approved\n")
    assert desk.sent[-1].body == {"verdict": verdict, "digest": "sha-256:shown", "note": "fine"}


def test_other_digest_than_the_one_given_is_refused_here(run: Run, desk: Any) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    done = run("approval", "approve", "apr_1", "--digest", "sha-256:other", "--yes")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert desk.calls() == ["GET /v1/approvals/apr_1"]


def test_without_a_person_to_ask_nothing_is_approved(run: Run, desk: Any) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    assert run("approval", "approve", "apr_1").code == ExitCode.USAGE
    assert desk.calls() == ["GET /v1/approvals/apr_1"]


def test_erased_action_cannot_be_approved(run: Run, desk: Any) -> None:
    desk.says("GET /v1/approvals/apr_1", {**ASKED, "digest": None})
    done = run("approval", "approve", "apr_1", "--yes")
    assert (done.code, desk.calls()) == (ExitCode.CONFLICT, ["GET /v1/approvals/apr_1"])


def test_quorum_that_is_not_reached_says_so(run: Run, desk: Any) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    desk.says("POST /v1/approvals/apr_1/decide", {**ASKED, "quorum": 3})
    assert run("approval", "approve", "apr_1", "--yes").out.endswith("recorded; 2 more people must approve\n")


# --------------------------------------------------------------------------------------------------- grants, kill switch


def test_grants_are_listed(run: Run, desk: Any) -> None:
    desk.says("GET /v1/grants", {"grants": [GRANT], "next": None})
    assert "grn_1" in run("grant", "list", "--live", "--run", "run_1").out
    assert desk.sent[-1].query == {"run": "run_1", "live": "true", "limit": "50"}


def test_revoking_a_static_secret_says_what_it_cannot_do(run: Run, desk: Any) -> None:
    desk.says("POST /v1/grants/grn_1/revoke", {**GRANT, "revocation": "none"})
    assert "its secret is static: change it where it is used" in run("grant", "revoke", "grn_1").out


@pytest.mark.parametrize("kind", ["run", "agent", "workload", "issuer"])
def test_kill_switch_of_each_kind(run: Run, desk: Any, kind: str) -> None:
    desk.says("POST /v1/quarantine", {"kind": kind, "name": "run_x", "runs": ["run_x"]})
    desk.says("POST /v1/quarantine/release", {"kind": kind, "name": "run_x"})
    assert run("quarantine", kind, "run_x", "--yes").out == f"{kind} run_x is quarantined; 1 run taken back\n"
    assert run("quarantine", kind, "run_x", "--release").out.startswith(f"{kind} run_x is released")
    assert [one.body for one in desk.sent] == [{kind: "run_x"}] * 2


def test_kill_switch_asks_first(run: Run, desk: Any) -> None:
    assert run("quarantine", "agent", "billing").code == ExitCode.USAGE
    assert desk.sent == []


def test_thrown_switches_are_listed(run: Run, desk: Any) -> None:
    thrown = {"kind": "agent", "name": "billing", "at": 1, "until": None}
    desk.says("GET /v1/quarantine", {"quarantines": [thrown, {**thrown, "name": "old", "until": 5}]})
    printed = run("quarantine", "list").out
    assert "billing" in printed
    assert "old" not in printed


# -------------------------------------------------------------------------------------------- workloads, people, secrets


def test_enrolling_sends_the_public_key_and_keeps_the_private_one(run: Run, desk: Any, tmp_path: Path) -> None:
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


def test_existing_key_file_is_kept_and_nothing_is_enrolled(run: Run, desk: Any, tmp_path: Path) -> None:
    (tmp_path / "w.key.json").write_text("mine", encoding="utf-8")
    assert run("workload", "enroll", "w", "--agent", "a").code == ExitCode.USAGE
    assert desk.sent == []
    assert (tmp_path / "w.key.json").read_text(encoding="utf-8") == "mine"


def test_key_that_cannot_be_saved_is_enrolled_for_nobody(run: Run, desk: Any, tmp_path: Path) -> None:
    desk.says("POST /v1/workloads", {"id": "wkl_1\x00", "name": "w", "agents": ["a"], "audiences": []})
    desk.says("DELETE /v1/workloads/wkl_1", {"id": "wkl_1"})
    assert run("workload", "enroll", "w", "--agent", "a").code == ExitCode.USAGE
    assert not (tmp_path / "w.key.json").exists()


def test_workload_serves_or_acts(run: Run, desk: Any) -> None:
    assert run("workload", "enroll", "w").code == ExitCode.USAGE
    assert desk.sent == []


def test_workloads_are_listed_and_removed(run: Run, desk: Any) -> None:
    listed = {"id": "wkl_1", "name": "w", "kind": "enrolled_key", "agents": ["a"], "audiences": [], "enrolled_at": 1,
              "removed_at": None}  # fmt: skip
    desk.says("GET /v1/workloads", {"workloads": [listed]})
    desk.says("DELETE /v1/workloads/wkl_1", listed)
    assert "wkl_1" in run("workload", "list").out
    assert run("workload", "remove", "wkl_1", "--yes").out == "workload wkl_1 is removed\n"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_new_token_is_in_a_private_file_and_nowhere_else(run: Run, desk: Any, tmp_path: Path, more: list[str]) -> None:
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


def test_nobody_is_created_whose_token_has_no_place(run: Run, desk: Any, tmp_path: Path) -> None:
    (tmp_path / "ada.client.json").write_text("mine", encoding="utf-8")
    assert run("operator", "create", "ada", "--role", "approver").code == ExitCode.USAGE
    assert desk.sent == []


def test_local_creation_needs_the_broker(run: Run, desk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stepgrant.cli.app.importlib.metadata.entry_points", lambda **_: ())
    monkeypatch.setattr(extensions, "create_operator", None)
    done = run("operator", "create", "root", "--role", "operator", "--local")
    assert done.code == ExitCode.USAGE
    assert "pip install 'stepgrant[broker,embedded]'" in done.err
    assert not (tmp_path / "root.client.json").exists()


def test_people_are_listed_and_removed(run: Run, desk: Any) -> None:
    listed = {"id": "opr_1", "name": "Ada", "roles": ["operator"], "groups": [], "created_at": 1, "removed_at": None}
    desk.says("GET /v1/operators", {"operators": [listed]})
    desk.says("DELETE /v1/operators/opr_1", listed)
    assert "Ada" in run("operator", "list").out
    assert run("operator", "remove", "opr_1", "--yes").out == "Ada is removed\n"


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))


@pytest.mark.parametrize("data", [b"s3cret-value", b"s3cret-value\n", b"s3cret-value\r\n"])
def test_secret_comes_from_stdin_and_is_never_shown(
    run: Run, desk: Any, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    typed(monkeypatch, data)
    desk.says("PUT /v1/secrets/crm", {"name": "crm", "hosts": ["api.crm.example"], "header": "X-Key", "set_at": 1})
    done = run("secret", "set", "crm", "--host", "api.crm.example", "--header", "X-Key")
    assert done.code == 0
    assert "s3cret" not in done.out + done.err
    assert desk.sent[0].body == {"value": "s3cret-value", "hosts": ["api.crm.example"], "header": "X-Key"}


@pytest.mark.parametrize("data", [b"", b"\n", b"s3cret\xff", b"s3cret" * 20_000])
def test_secret_that_is_none_is_refused_without_showing_it(
    run: Run, desk: Any, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    typed(monkeypatch, data)
    done = run("secret", "set", "crm", "--host", "h")
    assert (done.code, desk.sent) == (ExitCode.USAGE, [])
    assert "s3cret" not in done.err


def test_secret_that_the_broker_refuses_is_not_shown(run: Run, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"s3cret")
    desk.refuses("PUT /v1/secrets/crm", 403, "forbidden")
    done = run("secret", "set", "crm", "--host", "h")
    assert done.code == ExitCode.AUTH
    assert "s3cret" not in done.err


def test_secret_can_be_no_argument(run: Run, desk: Any) -> None:
    assert run("secret", "set", "crm", "s3cret", "--host", "h").code == ExitCode.USAGE
    assert desk.sent == []


# -------------------------------------------------------------------------------------------------------------- receipts


@pytest.fixture
def files(tmp_path: Path) -> SimpleNamespace:
    story = eventful()
    receipt, keys = tmp_path / "r.json", tmp_path / "k.json"
    receipt.write_bytes(dumps(story.receipt()))
    keys.write_bytes(dumps(story.book.jwks))
    return SimpleNamespace(receipt=receipt, keys=keys, story=story)


def test_receipt_is_verified_without_a_broker(run: Run, files: SimpleNamespace) -> None:
    done = run("receipt", "verify", str(files.receipt), "--key", str(files.keys))
    assert done.code == 0
    assert "The receipt holds: 30 entries of run_01, none changed, moved or missing." in done.out
    assert "It is complete" in done.out
    assert "a broker that was taken over can act and write nothing" in done.out


def test_receipt_can_tell_its_story(run: Run, files: SimpleNamespace) -> None:
    words = ["receipt", "verify", str(files.receipt), "--key", str(files.keys), "--show"]
    assert "Ada Lovelace approved it after 1 min" in run(*words).out
    value = run(*words, "--json").json
    assert (value["valid"], value["complete"], value["story"]["state"]) == (True, True, "completed")


def test_each_flipped_byte_makes_it_fail(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    good = files.receipt.read_bytes()
    bad = tmp_path / "bad.json"
    for place in range(10, len(good), len(good) // 40):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        done = run("receipt", "verify", str(bad), "--key", str(files.keys))
        assert (done.code, done.out) == (ExitCode.REFUSED, "")


def test_receipt_of_another_key_fails(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(dumps(eventful().book.jwks))
    done = run("receipt", "verify", str(files.receipt), "--key", str(other))
    assert done.code == ExitCode.REFUSED
    assert "bad_signature" in done.err


def test_missing_files(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    assert run("receipt", "verify", str(tmp_path / "no"), "--key", str(files.keys)).code == ExitCode.NOT_FOUND
    assert run("receipt", "verify", str(files.receipt), "--key", str(tmp_path)).code == ExitCode.NOT_FOUND
    assert run("receipt", "verify", str(files.receipt)).code == ExitCode.USAGE


def test_rewritten_history_is_found_with_an_earlier_receipt(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    rewritten = Story(files.story.book.__class__(files.story.book.key))
    rewritten.opened()
    rewritten.ended(77)
    other = tmp_path / "rewritten.json"
    other.write_bytes(dumps(rewritten.receipt()))
    words = ["--key", str(files.keys), "--earlier", str(other)]
    assert "forked" in run("receipt", "verify", str(files.receipt), *words).err
    same = run("receipt", "verify", str(files.receipt), "--key", str(files.keys), "--earlier", str(files.receipt))
    assert "It continues the earlier receipt" in same.out


def test_unfinished_run_says_that_more_may_come(run: Run, tmp_path: Path) -> None:
    story = Story()
    story.opened()
    (tmp_path / "r.json").write_bytes(dumps(story.receipt()))
    (tmp_path / "k.json").write_bytes(dumps(story.book.jwks))
    done = run("receipt", "verify", str(tmp_path / "r.json"), "--key", str(tmp_path / "k.json"))
    assert "The run had not ended: more may have come since." in done.out


def test_receipt_and_keys_are_taken_home(run: Run, desk: Any, tmp_path: Path) -> None:
    story = eventful()
    receipt_at(desk, "run_1", story)
    assert run("receipt", "get", "run_1", "--out", "r.json").out == "written to r.json\n"
    assert run("ledger", "keys", "--out", "k.json").code == 0
    assert run("receipt", "verify", "r.json", "--key", "k.json").code == 0
    printed = run("receipt", "get", "run_1").out
    assert printed.encode() == (tmp_path / "r.json").read_bytes() + b"\n"
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600
    assert run("receipt", "get", "run_1", "--out", "r.json").code == ExitCode.USAGE


def test_whoami(run: Run, desk: Any) -> None:
    desk.says("GET /v1/whoami", {"id": "opr_1", "name": "Ada", "tenant": "default", "roles": ["approver"], "groups": []})
    done = run("whoami")
    assert done.out.splitlines()[0] == "Ada"
    assert ".stepgrant/operator.json" in done.out
