"""What the commands about runs, steps and approvals send, show and refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from commandline import Done
from desk import Desk
from stepgrant import canonical
from stepgrant.cli.exits import ExitCode
from stories import Run as Story
from stories import eventful

Run = Callable[..., Done]
RUN: dict[str, Any] = {
    "id": "run_1", "key": "order-1729", "agent": "billing", "state": "open", "epoch": 1, "steps": 2, "opened_at": 1,
    "ended_at": None,
}  # fmt: skip
BOUND: dict[str, Any] = {
    "tenant": "default", "run": "run_1", "step": "publish", "effect": "once", "issuer": "jwt",
    "params": {"scope": "web"},
    "digest": canonical.action_digest("report.publish", "web", {"text": "paid \u202e\x1b[2J"}),
}  # fmt: skip
ASKED: dict[str, Any] = {
    "id": "apr_1", "run": "run_1", "step": "publish", "tool": "report.publish", "effect": "once", "issuer": "jwt",
    "status": "pending", "groups": ["editors"], "quorum": 1, "requested_at": 1, "answer_by": 2, "valid_for_ms": 900_000,
    "reasons": ["tool_needs_approval"], "why_again": "policy_stricter", "settled_at": None, "consumed_by": None,
    "answers": [{"operator": "opr_9", "verdict": "approve", "at": 1}], "digest": canonical.digest(BOUND),
    "bound": BOUND, "resume": None,
    "action": {"tool": "report.publish", "resource": "web", "args": {"text": "paid \u202e\x1b[2J"}},
    "run_facts": {"agent": "billing", "key": "order-1729", "state": "parked"},
}  # fmt: skip
STEP: dict[str, Any] = {
    "key": "charge", "recorded": False, "tool": "card.charge", "resource": None, "effect": "once", "state": "in_doubt",
    "attempt": 2, "epoch": 3, "position": 1, "parent": None, "idempotency_key": "sg-1", "grant": "grn_1",
    "approval": None, "result": {"a": 1}, "withheld": False, "failure": None, "error": None, "doubt": "fenced",
    "doubt_since": 5, "reconciles": 0, "same_as": None, "duplicate_of": None, "suspected": False,
}  # fmt: skip


def test_reading_sends_the_token_in_its_header_and_no_key(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN], "next": None})
    done = run("run", "list", "--agent", "billing", "--state", "open", "--limit", "7")
    assert done.code == 0
    assert "order-1729" in done.out
    (sent,) = desk.sent
    assert sent.query == {"agent": "billing", "state": "open", "limit": "7"}
    assert sent.headers["authorization"].startswith("Bearer sgo_")
    assert "idempotency-key" not in sent.headers


def test_runs_that_somebody_should_go_on_with_and_releasing_one(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN], "next": None})
    desk.says("POST /v1/quarantine/release", {"kind": "run", "name": "run_1"})
    assert "order-1729" in run("run", "list", "--resumable").out
    done = run("run", "release", "order-1729")
    assert done.out == "run_1 is released: whoever works for its agent resumes it\n"
    assert desk.sent[0].query == {"limit": "50", "resumable": "true"}
    assert desk.sent[-1].body == {"run": "run_1"}


def test_each_change_has_a_key_of_its_own(run: Run, desk: Desk) -> None:
    desk.says("POST /v1/grants/grn_1/revoke", {"jti": "grn_1", "status": "revoked", "revocation": "confirmed"})
    assert [run("grant", "revoke", "grn_1").code for _ in range(2)] == [0, 0]
    keys = [one.headers["idempotency-key"] for one in desk.sent]
    assert len(set(keys)) == 2
    assert all(len(key) >= 20 for key in keys)


@pytest.mark.parametrize("name", ["../operators", "a/b", "..", "", "x" * 600, "a\nb", "a?b=c"])
def test_name_stays_one_part_of_the_path(run: Run, desk: Desk, name: str) -> None:
    done = run("secret", "remove", "--yes", "--", name)
    assert done.code in {ExitCode.USAGE, ExitCode.NOT_FOUND}
    assert all(one.path.count("/") == 3 for one in desk.sent)
    assert all(one.query == {} for one in desk.sent)


def test_list_is_read_to_its_end(run: Run, desk: Desk) -> None:
    desk.answers["GET /v1/approvals"] = [
        (200, {"approvals": [ASKED], "next": "c1"}, {}),
        (200, {"approvals": [{**ASKED, "id": "apr_2"}], "next": None}, {}),
    ]
    done = run("approval", "list", "--json")
    assert [one["id"] for one in done.json["approvals"]] == ["apr_1", "apr_2"]
    assert [one.query.get("after") for one in desk.sent] == [None, "c1"]
    assert {one.query["status"] for one in desk.sent} == {"pending"}


def test_run_is_found_by_its_key(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [{**RUN, "key": "other", "id": "run_0"}, RUN], "next": None})
    desk.says("POST /v1/runs/run_1/cancel", {"run": "run_1", "state": "cancelled"})
    done = run("run", "cancel", "order-1729", "--yes")
    assert done.out == "run_1 is cancelled; this is final\n"
    assert desk.sent[-1].body == {}


def test_key_of_two_runs_and_of_none(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN, {**RUN, "id": "run_2", "agent": "other"}], "next": None})
    done = run("run", "cancel", "order-1729", "--yes")
    assert done.code == ExitCode.USAGE
    assert "run_1 (billing), run_2 (other)" in done.err
    assert run("run", "cancel", "order-1", "--yes").code == ExitCode.NOT_FOUND
    assert not [one for one in desk.sent if one.method == "POST"]


def receipt_at(desk: Desk, run_id: str, story: Story) -> None:
    desk.says(f"GET /v1/runs/{run_id}/receipt", story.receipt())
    desk.says("GET /v1/ledger/keys", story.book.jwks)


def test_newest_run_is_shown_as_its_timeline(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [RUN], "next": "x"})
    receipt_at(desk, "run_1", eventful())
    done = run("run", "show")
    assert done.code == 0
    assert "Ada Lovelace approved it after 1 min" in done.out
    assert "verified: 30 entries chained, head signed by head-key" in done.out
    as_json = run("run", "show", "run_1", "--json").json
    assert (as_json["state"], as_json["verified"]) == ("completed", True)


def test_what_a_broker_tells_is_checked_too(run: Run, desk: Desk) -> None:
    story = eventful()
    value = story.receipt()
    value["entries"].pop(3)
    desk.says("GET /v1/runs/run_1/receipt", value)
    desk.says("GET /v1/ledger/keys", story.book.jwks)
    done = run("run", "show", "run_1")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert "entry_out_of_order" in done.err


def test_no_runs_yet(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs", {"runs": [], "next": None})
    assert run("run", "show").code == ExitCode.NOT_FOUND
    assert run("run", "list").out == "no runs\n"


def test_steps_are_listed_and_shown(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps", {"steps": [STEP], "next": None})
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    assert "card.charge" in run("step", "list", "run_1").out
    shown = run("step", "show", "run_1", "charge").out
    assert "it may have happened: its holder was fenced before it could report" in shown
    assert '      "a": 1\n' in shown


def test_reconciling_sends_the_attempt_that_was_shown(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    desk.says("POST /v1/runs/run_1/steps/charge/reconcile", {**STEP, "state": "completed"})
    words = ["step", "reconcile", "run_1", "charge", "done", "--result", '{"id": "ch_7"}', "--evidence", "statement"]
    assert run(*words, "--yes").out.endswith("step charge is completed now\n")
    assert desk.sent[-1].body == {"verdict": "done", "result": {"id": "ch_7"}, "evidence": "statement", "attempt": 2}


@pytest.mark.parametrize(
    ("words", "code"),
    [(["not_done", "--result", "1"], 2), (["done", "--result", "{"], 2), (["done"], 2)],
)
def test_bad_reconciliation_sends_nothing(run: Run, desk: Desk, words: list[str], code: int) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    assert run("step", "reconcile", "run_1", "charge", *words).code == code
    assert "POST" not in {one.method for one in desk.sent}


def test_step_that_is_not_in_doubt_is_not_reconciled(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", {**STEP, "state": "completed"})
    done = run("step", "reconcile", "run_1", "charge", "done", "--yes")
    assert (done.code, desk.calls()) == (ExitCode.CONFLICT, ["GET /v1/runs/run_1/steps/charge"])


SUSPECTED = {**STEP, "key": "toolu_7", "state": "prepared", "doubt": None, "duplicate_of": "toolu_1", "suspected": True}


def test_word_on_a_suspected_duplicate_is_sent(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps/toolu_7", SUSPECTED)
    desk.says("POST /v1/runs/run_1/steps/toolu_7/duplicate", {"step": "toolu_7", "of": "toolu_1", "verdict": "replay"})
    done = run("step", "duplicate", "run_1", "toolu_7", "replay", "--note", "one was ordered", "--yes")
    assert "toolu_1" in done.out
    assert done.out.endswith("step toolu_7: replay\n")
    assert desk.sent[-1].body == {"verdict": "replay", "note": "one was ordered"}


def test_without_a_person_to_ask_no_word_is_sent(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps/toolu_7", SUSPECTED)
    assert run("step", "duplicate", "run_1", "toolu_7", "run").code == ExitCode.USAGE
    assert desk.calls() == ["GET /v1/runs/run_1/steps/toolu_7"]


def test_step_that_nobody_asks_about_gets_no_word(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/runs/run_1/steps/charge", STEP)
    done = run("step", "duplicate", "run_1", "charge", "run", "--yes")
    assert (done.code, desk.calls()) == (ExitCode.CONFLICT, ["GET /v1/runs/run_1/steps/charge"])


def test_approval_shows_exactly_what_is_asked(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    done = run("approval", "show", "apr_1")
    action = ("report.publish", "web", "at most once", '"scope": "web"', ASKED["digest"])
    context = ("run_1 (billing, order-1729, parked)", "tool_needs_approval", "policy asks for more now", "1 of editors")
    for words in (*action, *context, "approve by opr_9"):
        assert words in done.out
    assert '"text": "paid \\u202e\\u001b[2J"' in done.out


@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_answer_echoes_the_digest_that_was_shown(run: Run, desk: Desk, verdict: str) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    desk.says("POST /v1/approvals/apr_1/decide", {**ASKED, "status": "approved"})
    done = run("approval", verdict, "apr_1", "--note", "fine", "--yes")
    assert done.out.endswith("apr_1 is approved\n")
    assert desk.sent[-1].body == {"verdict": verdict, "digest": ASKED["digest"], "note": "fine"}


def test_other_digest_than_the_one_given_is_refused_here(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    done = run("approval", "approve", "apr_1", "--digest", "sha-256:other", "--yes")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert desk.calls() == ["GET /v1/approvals/apr_1"]


def test_without_a_person_to_ask_nothing_is_approved(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    assert run("approval", "approve", "apr_1").code == ExitCode.USAGE
    assert desk.calls() == ["GET /v1/approvals/apr_1"]


def test_erased_action_cannot_be_approved(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", {**ASKED, "digest": None})
    done = run("approval", "approve", "apr_1", "--yes")
    assert (done.code, desk.calls()) == (ExitCode.CONFLICT, ["GET /v1/approvals/apr_1"])


def test_quorum_that_is_not_reached_says_so(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", ASKED)
    desk.says("POST /v1/approvals/apr_1/decide", {**ASKED, "quorum": 3})
    assert run("approval", "approve", "apr_1", "--yes").out.endswith("recorded; 2 more people must approve\n")
