"""`stepgrant rehearse` finds each bad agent by exactly its finding, and nothing in good ones; all really killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.rehearsing import AGENTS, rehearsed
from stepgrant_broker.commands.rehearse.findings import KINDS, Level
from stepgrant_broker.commands.rehearse.report import NOT_REACHED

pytestmark = pytest.mark.timeout(240)  # each rehearsal starts several processes on a machine that may be busy


@dataclass(frozen=True)
class Bad:
    """A mistake: its finding, what it is about, and the rehearsal that shows it (None: the plain run does)."""

    agent: str
    code: str
    subject: str
    only: str | None = None
    shown: str = ""
    tools: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)


PYTHON = f"runs {Path(sys.executable).name}"
CHARGE = {"charge": {"effect": "once"}}
REDEEMED = {"charge": {"effect": "once", "audience": "https://shop.example", "redeem": "required"}}
MAIL = {"send": {"effect": "idempotent", "audience": "https://mails.example"}}
BAD = [
    Bad("no_ids", "ids_missing", "send", shown="calls side by side have no order"),
    Bad("changed_order", "order_changes", "send", "after-record:send-6", "started with another action"),
    Bad("random_ids", "ids_change", "send", "after-record:send-1", "equals the completed step"),
    Bad("changing_arguments", "id_reused", "send", "after-record:send-1", "started with another action"),
    Bad(
        "changing_question", "approval_lost", "charge", "approve:charge", "step charge-4711 was asked about with other"
    ),
    Bad("random_work", "work_redone", "send", "after-record:send-1", "3 steps of it completed, in the plain run 2"),
    Bad("outside_file", "effect_outside", "writes outbox.txt", "after-record:send-1", "at agent.py:15"),
    Bad("outside_program", "effect_outside", PYTHON, "after-record:send-1", "at agent.py:16"),
    Bad("outside_network", "effect_outside", "connects to 127.0.0.1:9", "after-record:send-1", "at agent.py:16"),
    Bad("swallows", "swallowed", "approval_required", "approve:send", "the run was completed"),
    Bad("secret_in_result", "secret_in_result", "send", shown="live secret", tools=MAIL),
    Bad("no_audience", "no_audience", "send", shown="outside this grant"),
    Bad("not_json", "result_not_stored", "send", shown="not JSON"),
    Bad("new_key", "new_run_each_start", "", "after-record:send-1", "run keys: newsletter-"),
    Bad("new_input", "input_changes", "", "after-record:send-1", "another input"),
    Bad("no_hook", "no_reconcile_hook", "charge", "after-effect:charge-1", "may already have happened"),
    Bad("undeclared", "effect_undeclared", "charge", "after-effect:charge-1", "no effect="),
    Bad("broken_hook", "hook_cannot_tell", "charge", "after-effect:charge-1", "raised FileNotFoundError"),
    Bad("unredeemed", "once_ran_twice", "charge", "after-effect:charge-1", "step charge-4711 ran 2 times", REDEEMED),
    Bad("left_open", "run_left_open", "", shown="the run is parked"),
    Bad("waits_for_ever", "hangs", "", "after-record:send-1", "not after", more={"timeout_s": 30.0}),
    Bad("cannot_come_back", "not_resumed", "", "after-record:send-1", "I was not here before"),
    Bad("never_ends", "not_started", "", shown="no mails today"),
    Bad("no_run", "no_run", "", shown="it said last: hello"),
    Bad("not_listed", "denied_by_policy", "mail", shown="reasons: tool_not_listed", tools=CHARGE),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.agent)
def test_a_bad_agent_is_found_by_exactly_its_finding(tmp_path: Path, bad: Bad) -> None:
    report = rehearsed(tmp_path, f"bad/{bad.agent}", only=(bad.only,) if bad.only else (), tools=bad.tools, **bad.more)
    assert [(one.code, one.subject) for one in report.findings] == [(bad.code, bad.subject)], report.document()
    (found,) = report.findings
    assert bad.shown in found.evidence
    assert found.seen_in[-1] == (bad.only or "plain")
    assert report.failed is (KINDS[bad.code].level is Level.ERROR)
    assert [row.id for row in report.rows] == ["plain", *([bad.only] if bad.only else [])]
    assert NOT_REACHED not in {row.resumed for row in report.rows}


def test_every_kind_of_finding_has_its_bad_agent() -> None:
    # A credential left alive would be the broker's mistake, not an agent's; test_rehearse_judging.py shows it is found.
    assert {bad.code for bad in BAD} | {"credential_alive"} == set(KINDS)
    assert {bad.agent for bad in BAD} == {path.stem for path in (AGENTS / "bad").glob("*.py")}


def test_nothing_is_found_in_a_good_agent(tmp_path: Path) -> None:
    """And what it calls itself is learned, where nobody said it."""
    only = ("after-grant:charge-1", "after-effect:charge-1", "policy:charge")
    report = rehearsed(tmp_path, "good/careful", names=(), only=only)
    assert (report.findings, report.notes, report.failed) == ((), (), False)
    assert [(row.resumed, row.redone, row.alive, row.asked) for row in report.rows] == [
        ("-", (), 0, 0), ("yes", (), 0, 0), ("yes", (), 0, 0), ("yes", (), 0, 1),
    ]  # fmt: skip


def test_a_good_agent_that_works_side_by_side_is_killed_at_all_boundaries(tmp_path: Path) -> None:
    report = rehearsed(tmp_path, "good/concurrent", jobs=2)
    assert (report.findings, report.failed) == ((), False)
    assert [row.id for row in report.rows] == [
        "plain", "before-grant:send-1", "after-grant:send-1", "after-effect:send-1", "after-record:send-1",
        "approve:send", "policy:send",
    ]  # fmt: skip
    assert {row.resumed for row in report.rows[1:]} == {"yes"}
    assert "send (idempotent)" in report.rows[3].ran_twice


def test_lives_that_end_alike_are_not_stuck_while_people_answer(tmp_path: Path) -> None:
    """Each life ends with the same error of the same call; in between one more question was answered."""
    report = rehearsed(tmp_path, "good/asks_in_turn", only=("approve:send",))
    assert (report.findings, report.failed) == ((), False), report.document()
    assert (report.rows[1].resumed, report.rows[1].asked) == ("yes", 4)
    assert len(report.rows[1].lives) > 4


def test_a_pattern_says_which_effects_outside_of_tools_are_meant(tmp_path: Path) -> None:
    report = rehearsed(tmp_path, "bad/outside_file", only=("before-grant:send-1",), outside_ok=("out*.txt",))
    assert (report.findings, report.failed) == ((), False)
