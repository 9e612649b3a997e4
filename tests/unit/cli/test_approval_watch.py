"""`stepgrant approval watch`, and what a list of questions tells: for whom, what, and why."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from commandline import Done
from desk import Desk
from questions import asked, page
from stepgrant.cli.exits import CommandError, ExitCode
from stepgrant.cli.output import Output, forget_typed

Run = Callable[..., Done]
LIST = "GET /v1/approvals"
MORE = 20


@pytest.fixture
def watching(run: Run, desk: Desk) -> Callable[..., Done]:
    """Watch while the desk answers these pages; from the last one on somebody presses Ctrl-C, at each look.

    Python drops what a signal's handler raises while it takes leave of an object, so one Ctrl-C may do nothing.
    """

    def call(pages: list[tuple[int, dict[str, Any], dict[str, str]]], *words: str) -> Done:
        for one in (asked(number) for number in (1, 2, 3)):
            desk.answers.setdefault(f"GET /v1/approvals/{one['id']}", (200, one, {}))
        desk.answers[LIST] = [*pages, *[pages[-1]] * MORE]
        left = iter(range(len(pages) - 1, -1, -1))
        desk.meanwhile[LIST] = lambda: None if next(left, 0) else os.kill(os.getpid(), signal.SIGINT)
        # Event loops that were here before may have left a handler of theirs.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return run("approval", "watch", "--every", "0.5", *words)
        finally:
            signal.signal(signal.SIGINT, before)

    return call


def somebody_sits_there(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    """At a terminal, and answers each question with this line."""
    number = os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: typed + "\n", fileno=lambda: number)
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_what_was_typed_before_a_question_does_not_answer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = os.openpty()
    with os.fdopen(terminal, encoding="ascii") as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        os.write(keyboard, b"approve\n")
        forget_typed()
        os.write(keyboard, b"d\n")
        assert typed.readline() == "d\n"
    os.close(keyboard)


def test_what_was_typed_before_the_question_does_not_confirm_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = os.openpty()
    screen = SimpleNamespace(isatty=lambda: True, flush=lambda: None, write=lambda _: os.write(keyboard, b"n\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    with os.fdopen(terminal, encoding="ascii") as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        os.write(keyboard, b"y\n")
        with pytest.raises(CommandError, match="nothing was changed"):
            Output().confirm("Sure?", yes=False)
    os.close(keyboard)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_who_does_not_see_a_question_is_not_asked(
    watching: Callable[..., Done], desk: Desk, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    somebody_sits_there(monkeypatch, "a")
    monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: False)
    done = watching([page(asked(1)), page()])
    assert "answer it: stepgrant approval approve apr_1, or deny" in done.out
    assert not [one for one in desk.sent if one.method == "POST"]


@pytest.mark.parametrize(("stream", "more"), [("stdin", ()), ("stdout", ()), ("stderr", ()), (None, ("--json",))])
@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_who_does_not_see_a_question_does_not_confirm_it(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch, stream: str | None, more: tuple[str, ...], verdict: str
) -> None:
    """What is asked stands on stdout: with that in a file, or as JSON, a yes would be to something unseen."""
    somebody_sits_there(monkeypatch, "y")
    if stream is not None:
        monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: False)
    desk.says("GET /v1/approvals/apr_1", asked(1))
    done = run("approval", verdict, "apr_1", *more)
    assert done.code == ExitCode.USAGE
    assert "repeat with --yes" in done.err
    assert "[y/N]" not in done.err
    assert not [one for one in desk.sent if one.method == "POST"]


@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_who_sees_a_question_whole_confirms_it(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    somebody_sits_there(monkeypatch, "y")
    desk.says("GET /v1/approvals/apr_1", asked(1))
    desk.says("POST /v1/approvals/apr_1/decide", asked(1, status="approved"))
    done = run("approval", verdict, "apr_1")
    assert (done.code, done.err) == (ExitCode.OK, f"{verdict.capitalize()} exactly this? [y/N] ")
    assert [one.body for one in desk.sent if one.method == "POST"] == [
        {"verdict": verdict, "digest": asked(1)["digest"]}
    ]


def test_a_question_that_comes_after_younger_ones_is_told_too(watching: Callable[..., Done]) -> None:
    done = watching([page(asked(3), asked(1)), page(asked(3), asked(2), asked(1)), page()], "--json")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["apr_1", "apr_3", "apr_2"]


def test_each_question_is_a_line_once_and_the_oldest_comes_first(watching: Callable[..., Done], desk: Desk) -> None:
    first, second, third = asked(1), asked(2), asked(3)
    done = watching([page(second, first), page(third, second, first), page()], "--json")
    assert done.code == ExitCode.OK
    assert [json.loads(line) for line in done.out.splitlines()] == [first, second, third]
    lists = [one for one in desk.sent if one.path == "/v1/approvals"]
    assert {one.query["status"] for one in lists} == {"pending"}
    assert [one.path for one in desk.sent].count("/v1/approvals/apr_1") == 1


def test_where_nobody_sits_it_says_how_to_answer(watching: Callable[..., Done], desk: Desk) -> None:
    done = watching([page(asked(1)), page()])
    assert done.code == ExitCode.OK
    for words in ('"text": "number 1"', "billing, order-1729", "it is the digest of exactly this",
                  "answer it: stepgrant approval approve apr_1, or deny"):  # fmt: skip
        assert words in done.out
    assert not [one for one in desk.sent if one.method == "POST"]


@pytest.mark.parametrize(("typed", "verdict"), [("a", "approve"), ("DENY", "deny"), ("", None), ("yes", None)])
def test_what_was_shown_is_answered_from_there(
    watching: Callable[..., Done], desk: Desk, monkeypatch: pytest.MonkeyPatch, typed: str, verdict: str | None
) -> None:
    somebody_sits_there(monkeypatch, typed)
    desk.says("POST /v1/approvals/apr_1/decide", asked(1, status="approved"))
    done = watching([page(asked(1)), page()])
    sent = [one.body for one in desk.sent if one.method == "POST"]
    assert sent == ([] if verdict is None else [{"verdict": verdict, "digest": asked(1)["digest"]}])
    assert ("apr_1 is approved" if verdict else "not answered; it waits") in done.out


def test_what_is_not_shown_whole_is_not_answered(
    watching: Callable[..., Done], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_sits_there(monkeypatch, "a")
    desk.says("GET /v1/approvals/apr_1", asked(1, action={"tool": "report.publish", "resource": "web", "args": {}}))
    desk.says("POST /v1/approvals/apr_2/decide", asked(2, status="approved"))
    done = watching([page(asked(2), asked(1)), page()])
    assert "apr_1: the digest is not that of what is shown" in done.err
    assert [one.path for one in desk.sent if one.method == "POST"] == ["/v1/approvals/apr_2/decide"]


def test_a_broker_that_is_away_is_asked_again_and_nothing_is_told_twice(
    watching: Callable[..., Done], desk: Desk
) -> None:
    away: tuple[int, dict[str, Any], dict[str, str]] = (503, {"code": "policy_unavailable", "detail": "not now"}, {})
    desk.answers["GET /v1/approvals/apr_2"] = [away, (200, asked(2), {})]
    done = watching([page(asked(1)), away, page(asked(2), asked(1)), page(asked(2), asked(1)), page()], "--json")
    assert done.code == ExitCode.OK
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["apr_1", "apr_2"]
    assert [line for line in done.err.splitlines() if "asked again in" in line] == [
        "stepgrant: policy_unavailable (HTTP 503): not now; asked again in 1 s",
        "stepgrant: policy_unavailable (HTTP 503): not now; asked again in 2 s",
    ]  # fmt: skip


def test_an_answer_that_did_not_arrive_is_asked_for_again(
    watching: Callable[..., Done], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_sits_there(monkeypatch, "a")
    away: tuple[int, dict[str, Any], dict[str, str]] = (503, {"code": "ledger_unavailable", "detail": "not now"}, {})
    taken: tuple[int, dict[str, Any], dict[str, str]] = (409, {"code": "conflict", "detail": "answered already"}, {})
    desk.answers["POST /v1/approvals/apr_1/decide"] = [away, (200, asked(1, status="approved"), {})]
    desk.answers["POST /v1/approvals/apr_2/decide"] = [taken]
    done = watching([page(asked(1)), page(asked(1)), page(asked(2), asked(1)), page(asked(2), asked(1)), page()])
    posts = [one.path for one in desk.sent if one.method == "POST"]
    assert posts == [*["/v1/approvals/apr_1/decide"] * 2, "/v1/approvals/apr_2/decide"]
    assert ("apr_1 is approved" in done.out, "answered already" in done.err) == (True, True)


def test_a_token_that_nobody_knows_ends_it(run: Run, desk: Desk) -> None:
    desk.refuses(LIST, 401, "invalid_token")
    assert run("approval", "watch", "--json").code == ExitCode.AUTH
    assert len(desk.sent) == 1


def test_a_list_tells_for_whom_what_and_why(run: Run, desk: Desk) -> None:
    resume = asked(2, tool="stepgrant.run.takeover", resume={"run": "run_1", "subject": "workload:default/eve"},
                   groups=[], quorum=2)  # fmt: skip
    desk.answers[LIST] = [page(resume, asked(1))]
    for one in (asked(1), resume):
        desk.says(f"GET /v1/approvals/{one['id']}", one)
    header, second, first = run("approval", "list").out.splitlines()
    assert header.split() == ["approval", "agent", "run", "step", "wants", "why", "asks", "asked", "answer", "by"]
    for words in ("billing", "order-1729", 'report.publish on web {"text": "number 1"}', "tool_needs_approval"):
        assert words in first
    assert "take over: workload:default/eve" in second
    assert "2 of any approver" in second


def test_a_list_of_what_was_answered_asks_for_nothing_more(run: Run, desk: Desk) -> None:
    desk.answers[LIST] = [page(asked(1, status="denied"))]
    printed = run("approval", "list", "--status", "all").out
    assert ("denied" in printed, [one.path for one in desk.sent]) == (True, ["/v1/approvals"])


def test_the_command_that_explains_it_can_be_pasted(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", asked(1, step="s1; rm -rf /"))
    assert "`stepgrant policy explain run_1 's1; rm -rf /'` says by which rules" in run("approval", "show", "apr_1").out
