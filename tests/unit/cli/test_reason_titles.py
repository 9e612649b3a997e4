"""The titles of reasons beside their codes: read as the broker reads them, and never in the way."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from commandline import Done
from desk import Desk
from questions import asked, page
from stepgrant._receipt_policies import policy_digest
from stepgrant.cli.exits import ExitCode
from stepgrant.cli.reason_titles import titles_in, told
from stepgrant_broker.policy.bundle import read_starter
from stepgrant_broker.policy.metadata import read_annotations

Run = Callable[..., Done]
TEXT = """# METADATA
# title: This tool always needs a person
# description: |
#   Two lines
#   of words.
# custom:
#   code: tool_needs_approval
require_approval contains "tool_needs_approval" if true
"""


def revision_of(text: str) -> str:
    return "7:" + policy_digest({"stepgrant/a.rego": text})


REVISION = revision_of(TEXT)
POLICY = f"GET /v1/policies/{REVISION}"


def test_the_starter_policy_is_read_as_the_broker_reads_it() -> None:
    codes = 0
    for text in read_starter().modules.values():
        wanted = {one.code: one.title for one in read_annotations(text).values() if one.code}
        assert titles_in(text) == wanted
        codes += len(wanted)
    assert codes > 15


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ('# METADATA\n# title: "By its rule"\ndeny contains "far" if true\n', {"far": "By its rule"}),
        ('# METADATA\n# description: no title\ndeny contains "far" if true\n', {}),
        ("# METADATA\n# title: A package\npackage a\n", {}),
        ('# title: No annotation\ndeny contains "far" if true\n', {}),
        ("# METADATA\n# title: T\n# custom:\n#   other: x\n#   code: near\ndeny contains c if true\n", {"near": "T"}),
    ],
)
def test_what_is_no_title_of_a_code_is_none(text: str, titles: dict[str, str]) -> None:
    assert titles_in(text) == titles


def test_a_code_without_a_title_stands_alone() -> None:
    assert told(["one", "two"], {"two": "The second"}) == "one, two (The second)"


def test_titles_stand_beside_the_codes_and_are_read_once_for_a_list(run: Run, desk: Desk) -> None:
    both = [asked(number, revision=REVISION) for number in (2, 1)]
    desk.answers["GET /v1/approvals"] = page(*both)
    for one in both:
        desk.says(f"GET /v1/approvals/{one['id']}", one)
    desk.says(POLICY, {"revision": REVISION, "activated_at": 1, "text": {"stepgrant/a.rego": TEXT}})
    done = run("approval", "list")
    assert done.out.count("tool_needs_approval (This tool always needs a person)") == 2
    assert desk.calls().count(POLICY.replace(":", "%3A")) + desk.calls().count(POLICY) == 1
    shown = run("approval", "show", "apr_1")
    assert re.search(r"why +tool_needs_approval \(This tool always needs a person\)\n", shown.out)
    assert run("approval", "show", "apr_1", "--json").json == both[1]


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_policy_that_cannot_be_read_keeps_nobody_from_the_question(run: Run, desk: Desk, status: int) -> None:
    desk.says("GET /v1/approvals/apr_1", asked(1, revision=REVISION))
    desk.refuses(POLICY, status, "store_unavailable" if status == 503 else "not_found")
    done = run("approval", "show", "apr_1")
    assert done.code == ExitCode.OK
    assert re.search(r"why +tool_needs_approval\n", done.out)


def test_a_text_that_is_not_the_revisions_gives_no_titles(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", asked(1, revision=REVISION))
    kind = TEXT.replace("This tool always needs a person", "Routine, checked by security")
    desk.says(POLICY, {"revision": REVISION, "activated_at": 1, "text": {"stepgrant/a.rego": kind}})
    assert re.search(r"why +tool_needs_approval\n", run("approval", "show", "apr_1").out)


def test_an_older_broker_says_no_revision_and_is_not_asked_for_titles(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/approvals/apr_1", asked(1))
    assert re.search(r"why +tool_needs_approval\n", run("approval", "show", "apr_1").out)
    assert desk.calls() == ["GET /v1/approvals/apr_1"]


def test_a_title_cannot_act_on_a_terminal(run: Run, desk: Desk) -> None:
    evil = TEXT.replace("This tool", "\x1b[2JThis tool")
    other = revision_of(evil)
    desk.says("GET /v1/approvals/apr_1", asked(1, revision=other))
    desk.says(f"GET /v1/policies/{other}", {"revision": other, "activated_at": 1, "text": {"stepgrant/a.rego": evil}})
    out = run("approval", "show", "apr_1").out
    assert "\x1b[2J" not in out
    assert "This tool always needs a person" in out
