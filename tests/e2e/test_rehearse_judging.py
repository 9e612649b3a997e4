"""What is made of what was seen: each rule on lines and rows, so that no real agent has to be killed for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from changing import replace
from e2e.rehearsing import environment
from stepgrant.receipt import Event
from stepgrant_broker.commands.rehearse import scenarios, trace, workspace
from stepgrant_broker.commands.rehearse.findings import KINDS, Finding, Level, merged
from stepgrant_broker.commands.rehearse.judging import CAUSES, PAUSES, judge
from stepgrant_broker.commands.rehearse.lives import Ended
from stepgrant_broker.commands.rehearse.performing import INSIDE, Rehearsal
from stepgrant_broker.commands.rehearse.policies import OPEN_SETTINGS, SETTINGS, Policy, read_policy
from stepgrant_broker.commands.rehearse.report import Report, row_of
from stepgrant_broker.commands.rehearse.scenarios import PLAIN_RUN, Moment, Scenario
from stepgrant_broker.commands.rehearse.stage import Standing
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.state import Grant, GrantStatus, Run, RunState

RUN = Run(
    id="run_1", tenant="default", key="k", agent="a", agent_version=None, state=RunState.COMPLETED, epoch=2, jkt="j",
    workload="w", subject_c="s", opened_at=1, labels={}, input_c=None, principal_c=None, principal_method=None, seq=9,
    head="h", last_ts=2,
)  # fmt: skip
GRANT = Grant(
    jti="g1", run="run_1", tenant="default", step="s1", attempt=1, epoch=1, issuer="jwt",
    revocation=Revocation.CONFIRMED, tool="pay", effect=Effect.ONCE, redeem=RedeemMode.REQUIRED, jkt="j", audience="u",
    digest_c="d", status=GrantStatus.ISSUED, issued_at=1, exp=9,
)  # fmt: skip
WELL = Ended(0, 1.0, stopped=False, in_time=True, last_words=())
KILLED = Ended(-9, 1.0, stopped=False, in_time=True, last_words=())
KILL = Scenario("after-record:pay-1", "killed", Moment.AFTER_RECORD, 1, tool="pay")


def called(
    n: int, tool: str = "pay", *, life: int = 1, error: str | None = None, **more: object
) -> list[dict[str, Any]]:
    """One call of a tool, as the watcher tells it: it ran and did, unless it ended with an error."""
    at = {"pid": 7, "life": life}
    ran = [
        {**at, "hit": name, "of": n, "step": step}
        for name, step in (("sdk.before_begin", None), ("sdk.before_effect", f"{tool}-{n}"),
                           ("sdk.after_effect", f"{tool}-{n}"), ("sdk.after_complete", None))
    ]  # fmt: skip
    line = {**at, "n": n, "calls": "tool", "tool": tool, "effect": "once", "hook": True, "declared": True, "id": True,
            "args": "00", **more}  # fmt: skip
    return [line, *([] if error else ran), {**at, "came": n, "error": error, "why": "because", "reasons": []}]


def done(*steps: tuple[str, str, str], kind: str = "step_completed") -> tuple[Event, ...]:
    """Entries of completed steps: key, tool, digest."""
    return tuple(
        Event(
            seq, 1, kind, key, 1, 1, "h", MappingProxyType({"action": {"tool": tool, "digest_c": digest}, "body": {}})
        )
        for seq, (key, tool, digest) in enumerate(steps)
    )


def seen(scenario: Scenario, lines: list[dict[str, Any]], events: tuple[Event, ...] = (), **more: Any) -> Rehearsal:  # noqa: ANN401 - fields
    """A rehearsal that ended well, but for what `more` says."""
    lives = [WELL] if scenario.moment is None else [KILLED, WELL]
    standing = Standing((RUN,), {"run_1": events}, ())
    return Rehearsal(scenario, **{"lives": lives, "trace": trace.told(lines), "standing": standing, **more})


PLAIN = seen(PLAIN_RUN, called(1), done(("pay-1", "pay", "d1")))


def codes(*rehearsals: Rehearsal) -> list[tuple[str, str]]:
    return [(one.code, one.subject) for one in judge(rehearsals)]


def test_a_healthy_agent_has_no_findings() -> None:
    assert codes(PLAIN, seen(KILL, called(1), done(("pay-1", "pay", "d1")))) == []


def test_a_step_that_ran_twice_is_a_mistake_only_if_it_is_once() -> None:
    events = done(("pay-1", "pay", "d1"))
    assert codes(PLAIN, seen(KILL, called(1) + called(1, life=2), events)) == [("once_ran_twice", "pay")]
    lines = called(1, effect="idempotent") + called(1, life=2, effect="idempotent")
    assert codes(PLAIN, seen(KILL, lines, events)) == []


def test_a_hooks_word_allows_the_second_time() -> None:
    events = done(("pay-1", "pay", "d1")) + done(("pay-1", "pay", "d1"), kind="step_reconciled")
    assert codes(PLAIN, seen(KILL, called(1) + called(1, life=2), events)) == []


def test_the_same_action_in_two_steps_is_work_done_again_unless_the_plain_run_does_it_too() -> None:
    twice = done(("pay-1", "pay", "d1"), ("pay-2", "pay", "d1"))
    plain = seen(PLAIN_RUN, called(1), done(("pay-1", "pay", "d1"), ("pay-2", "pay", "d2")))
    assert codes(plain, seen(KILL, called(1), twice)) == [("work_redone", "pay")]
    assert codes(seen(PLAIN_RUN, called(1), twice), seen(KILL, called(1), twice)) == []


def test_a_hooks_looks_are_no_work() -> None:
    looks = done(("pay-1", "pay", "d1"), ("l1", "pay.reconcile", "d1"), ("l2", "pay.reconcile", "d1"))
    assert codes(PLAIN, seen(KILL, called(1), looks)) == []


def test_a_live_grant_of_an_ended_run_is_found_and_one_of_an_open_run_is_not() -> None:
    def with_run(state: RunState) -> Rehearsal:
        return seen(KILL, called(1), standing=Standing((replace(RUN, state=state),), {}, (GRANT,)))

    assert codes(PLAIN, with_run(RunState.COMPLETED)) == [("credential_alive", "pay")]
    assert ("credential_alive", "pay") not in codes(PLAIN, with_run(RunState.PARKED))
    assert row_of(with_run(RunState.COMPLETED), PLAIN, []).alive == 1


@pytest.mark.parametrize("code", sorted(PAUSES))
def test_each_pause_is_no_answer(code: str) -> None:
    found = codes(PLAIN, seen(KILL, called(1, life=2, error=code)))
    assert ("swallowed", code) in found


def test_a_pause_is_not_swallowed_if_the_call_was_made_again_or_the_run_went_on_later() -> None:
    again = called(1, life=2, error="approval_required") + called(2, life=2)
    assert codes(PLAIN, seen(KILL, again)) == []
    parked = Standing((replace(RUN, state=RunState.PARKED),), {}, ())
    assert ("swallowed", "approval_required") not in codes(
        PLAIN, seen(KILL, called(1, life=2, error="approval_required"), standing=parked)
    )


def test_a_refusal_of_policy_is_an_answer() -> None:
    assert codes(PLAIN, seen(KILL, called(1, life=2, error="policy_denied"))) == []


def test_one_cause_is_one_finding() -> None:
    for cause, results in CAUSES.items():
        assert {cause, *results} <= set(KINDS)
    undeclared = seen(KILL, called(1, life=2, error="step_in_doubt", declared=False, hook=False), needs_person=True,
                      standing=Standing((replace(RUN, state=RunState.PARKED),), {}, ()))  # fmt: skip
    assert codes(PLAIN, undeclared) == [("effect_undeclared", "pay")]


def test_findings_of_several_rehearsals_are_one_and_errors_come_first() -> None:
    found = [Finding("no_reconcile_hook", "a", "", ["1"]), Finding("swallowed", "b", "x", ["1"]),
             Finding("swallowed", "b", "y", ["2"])]  # fmt: skip
    assert [(one.code, one.evidence, one.seen_in) for one in merged(found)] == [
        ("swallowed", "x", ["1", "2"]),
        ("no_reconcile_hook", "", ["1"]),
    ]


def test_every_kind_says_how_to_mend_it() -> None:
    for code in KINDS:
        finding = Finding(code, "pay", "")
        assert "{" not in finding.title
        assert len(finding.mend) > 40
        assert finding.mend.endswith(".")


# ------------------------------------------------------------------------------------------------ plans and reports


def test_each_step_is_killed_at_each_boundary_and_quick_takes_the_first_of_each_tool() -> None:
    lines = called(1, "look", effect="read") + called(2) + called(3)
    every = scenarios.plan(trace.told(lines), quick=False, can_ask=True)
    assert [(one.id, one.nth) for one in every if one.moment is Moment.AFTER_EFFECT] == [
        ("after-effect:look-1", 1), ("after-effect:pay-1", 2), ("after-effect:pay-2", 3),
    ]  # fmt: skip
    assert [one.id for one in every if one.ask] == ["approve:pay", "policy:pay"]
    assert every[1].failpoint == {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": "sdk.before_effect:kill:1"}
    quick = scenarios.plan(trace.told(lines), quick=True, can_ask=False)
    assert [one.id for one in quick if one.moment is Moment.AFTER_RECORD] == [
        "after-record:look-1",
        "after-record:pay-1",
    ]
    assert len({one.id for one in every}) == len(every) == 14


def test_what_the_plain_run_did_in_a_later_life_is_killed_in_that_life() -> None:
    lines = called(1, error="approval_required") + called(1, life=2) + called(2, life=2)
    kills = list(scenarios.plan(trace.told(lines), quick=False, can_ask=False))
    assert [(one.id, one.life, one.nth) for one in kills if one.moment is Moment.AFTER_EFFECT] == [
        ("after-effect:pay-1", 2, 1), ("after-effect:pay-2", 2, 2),
    ]  # fmt: skip
    assert not seen(kills[0], called(1)).died
    assert seen(kills[0], called(1) + called(1, life=2)).died


def test_a_call_that_begins_several_times_is_killed_at_its_last_begin() -> None:
    lines = called(1, error="approval_required")
    lines.insert(1, {"pid": 7, "life": 1, "hit": "sdk.before_begin", "of": 1, "step": None})
    granted = called(2)
    granted.insert(2, granted[1])
    (kill, *_) = scenarios.plan(trace.told(lines + granted), quick=True, can_ask=False)
    assert (kill.id, kill.nth) == ("before-grant:pay-1", 3)


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    book = tmp_path / "seen"
    whole = json.dumps({"pid": 1, "life": 1, "process": []})
    book.write_text(f'{whole}\n{{"pid": 1, "li', encoding="utf-8")
    assert (trace.read(book).watched, trace.read(tmp_path / "none").watched) == (True, False)


def test_reports_hold_no_control_characters_and_strict_makes_warnings_errors() -> None:
    finding = Finding("no_reconcile_hook", "pay\x1b[31m", "it\x00was", ["plain"])
    row = row_of(PLAIN, PLAIN, [finding])
    report = Report(["python", "a b.py"], "p", (row,), (finding,), (), (), 1.0, strict=False)
    assert (report.failed, replace(report, strict=True).failed) == (False, True)
    assert b'failures="0"' in report.junit()
    assert b'failures="1"' in replace(report, strict=True).junit()
    assert b"\x1b" not in report.junit() + replace(report, strict=True).junit()
    again = replace(report, options=("--beside", "x y")).again("approve:pay")
    assert again == "stepgrant rehearse --beside 'x y' --only approve:pay -- python 'a b.py'"
    assert report.again("plain") == "stepgrant rehearse -- python 'a b.py'"
    assert finding.kind.level is Level.WARNING


# --------------------------------------------------------------------------------------------- policies and folders


def test_settings_are_told_to_ask_and_to_forbid_and_nothing_else_changes() -> None:
    settings = {"agents": {"a": {"tools": {"pay": {"effect": "once"}, "look": {"effect": "read"}}}}}
    policy = Policy({SETTINGS: json.dumps(settings), "stepgrant/x.rego": "package x"}, "policy")
    asking, forbidding = policy.asking("pay"), policy.forbidding("pay")
    assert json.loads(asking[SETTINGS])["agents"]["a"]["tools"]["pay"] == {"effect": "once", "ask": True}
    assert json.loads(forbidding[SETTINGS])["agents"]["a"]["tools"] == {"look": {"effect": "read"}}
    assert asking["stepgrant/x.rego"] == forbidding["stepgrant/x.rego"] == "package x"
    assert json.loads(policy.files[SETTINGS]) == settings
    assert (policy.agents, policy.can_ask) == (("a",), True)
    assert not Policy({"stepgrant/x.rego": "package x"}, "own").can_ask


def test_without_a_policy_tools_are_named_in_the_rehearsals_own_data() -> None:
    policy = read_policy(None)
    assert json.loads(policy.asking("pay")[OPEN_SETTINGS]) == {"ask": ["pay"], "forbid": []}
    assert json.loads(policy.forbidding("pay")[OPEN_SETTINGS]) == {"ask": [], "forbid": ["pay"]}
    assert policy.can_ask


def test_a_copy_has_the_project_without_what_is_not_its_own(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("src/agent.py", ".git/config", ".venv/bin/python", ".stepgrant/workload.json", "data/x"):
        file = project / name
        file.parent.mkdir(parents=True)
        file.write_text("x", encoding="utf-8")
    (project / "link").symlink_to("src/agent.py")
    os.mkfifo(project / "pipe")
    copy = workspace.copy(project, tmp_path / "copy")
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if not path.is_dir()) == [
        "data/x", "link", "src/agent.py",
    ]  # fmt: skip
    here = project / ".venv" / "bin" / "python"
    assert workspace.anchored([".venv/bin/python", "src/agent.py"], project) == [str(here), "src/agent.py"]
    assert workspace.anchored(["python", "a/b"], project) == ["python", "a/b"]


# ----------------------------------------------------------------------------------------------------- the watcher


def test_another_sitecustomize_is_loaded_as_if_the_watcher_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.stdout.write('theirs ')", encoding="utf-8")
    path = os.pathsep.join([str(INSIDE), str(tmp_path)])
    for book in ("", str(tmp_path / "seen")):
        more = {"PYTHONPATH": path, "STEPGRANT_REHEARSAL": book}
        said = subprocess.run(
            [sys.executable, "-c", "print('mine')"],
            env=environment() | more,
            capture_output=True,
            text=True,
            check=True,
        )
        assert (said.stdout, said.stderr) == ("theirs mine\n", "")
    assert trace.read(tmp_path / "seen").watched


def test_the_watcher_writes_no_value_down(tmp_path: Path) -> None:
    shutil.copy(INSIDE / "sitecustomize.py", tmp_path / "watcher.py")
    program = (
        "import watcher\n"
        "class Order: agent, run_key = 'a', 'k'\n"
        "class Raised:\n    def __init__(self, error): self.error = error\n"
        "def flow(order):\n    yield 1\n    return Raised(ValueError('very secret'))\n"
        "book = watcher.Book('seen')\n"
        "for _ in watcher.watch_flow(book, flow, watcher.run_line)(Order): pass\n"
        "book.note(args=watcher.digest_of({'card': 'very secret'}))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), check=True)
    text = (tmp_path / "seen").read_text(encoding="utf-8")
    assert '"type": "ValueError"' in text
    assert "secret" not in text
