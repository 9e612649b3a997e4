"""`stepgrant policy preflight` over the real broker: what a candidate says to what parked runs would ask next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from clerks import SETTINGS
from commandline import Done
from replays import ask_no_more, asked, folder, work
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.testing import TestHost

Run = Callable[..., Done]


def with_(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The clerk's settings, changed."""
    return {**SETTINGS, **changed}


def publishing(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Settings in which publishing is declared otherwise."""
    tools = {**SETTINGS["agents"]["clerk"]["tools"], "file.publish": {"effect": "once", **more}}
    return with_(agents={"clerk": {"tools": tools}})


def preflight(run: Run, root: list[str], tmp_path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    done = run("policy", "preflight", folder(tmp_path, settings), "--json", *root)
    assert done.code == 0, done.err
    return dict(done.json)


def of_step(report: dict[str, Any], step: str) -> dict[str, Any]:
    (found,) = (one for one in report["actions"] if one["step"] == step)
    return dict(found)


def footprint(host: TestHost) -> tuple[list[int], int]:
    """What a read must leave as it is."""
    return [len(host.entries(one.id)) for one in host.runs()], len(host.entries())


def test_the_same_policy_changes_nothing_and_nothing_is_written(
    host: TestHost, run: Run, root: list[str], tmp_path: Path
) -> None:
    asked()
    before = footprint(host), [(one.seq, one.epoch, one.state) for one in host.runs()]
    report = preflight(run, root, tmp_path, SETTINGS)
    assert (report["runs"], report["changed"], report["voided"], report["broken"]) == (1, 0, [], [])
    assert [one["step"] for one in report["actions"]] == ["~resume", "publish"]
    assert of_step(report, "~resume")["now"]["effect"] == "allow"
    waiting = of_step(report, "publish")
    assert (waiting["now"]["effect"], waiting["waits_for"]) == ("require_approval", "awaiting_approval")
    assert [(one["now"], one["candidate"]) for one in waiting["approvals"]] == [("kept", "kept")]
    assert (footprint(host), [(one.seq, one.epoch, one.state) for one in host.runs()]) == before


def test_what_becomes_of_a_question_that_stands_open(run: Run, root: list[str], tmp_path: Path) -> None:
    approval = asked()
    candidates = {
        "asks nobody": ask_no_more(),
        "knows no agent": with_(agents={}),
        "shorter": publishing(ask=True, ttl=5),
        "other people": publishing(ask=True, approval={"groups": ["editors"]}),
        "more people": publishing(ask=True, approval={"quorum": 2}),
        "other issuer": publishing(ask=True, issuer="static", params={"name": "web"}),
    }
    told, voided = {}, {}
    for name, settings in candidates.items():
        report = preflight(run, root, tmp_path, settings)
        waiting = of_step(report, "publish")
        (fate,) = waiting["approvals"]
        assert (fate["approval"], fate["status"], fate["now"]) == (approval, "pending", "kept")
        told[name] = (waiting["candidate"]["effect"], fate["candidate"], fate["why"], waiting["changed"])
        voided[name] = [one["approval"] for one in report["voided"]]
    assert told == {
        "asks nobody": ("allow", "not_needed", None, True),
        "knows no agent": ("deny", "refused", None, True),
        "shorter": ("require_approval", "kept", None, False),
        "other people": ("require_approval", "void", "policy_changed", True),
        "more people": ("require_approval", "void", "policy_changed", True),
        "other issuer": ("require_approval", "void", "action_changed", True),
    }
    assert voided == {name: [approval] if fate in {"void", "refused"} else [] for name, (_, fate, _, _) in told.items()}


def test_what_it_says_is_what_happens_when_the_candidate_is_promoted(
    host: TestHost, run: Run, root: list[str], tmp_path: Path
) -> None:
    """An answer was given; the next action now is an allow, and under the candidate another question."""
    approval = asked()
    assert run("approval", "approve", approval, "--yes", *root).code == 0
    stricter = publishing(ask=True, approval={"quorum": 2})
    report = preflight(run, root, tmp_path, stricter)
    waiting = of_step(report, "publish")
    assert (waiting["now"]["effect"], waiting["candidate"]["effect"]) == ("allow", "require_approval")
    assert waiting["now"]["reasons"][-1] == f"approved:{approval}"
    (told,) = report["voided"]
    assert (told["approval"], told["status"], told["why"]) == (approval, "approved", "policy_stricter")
    host.set_settings(stricter)
    again = asked()
    assert again != approval
    assert run("approval", "show", again, "--json", *root).json["why_again"] == "policy_stricter"


def test_an_answer_that_still_holds_is_spent_by_the_resumed_run(run: Run, root: list[str], tmp_path: Path) -> None:
    approval = asked()
    assert run("approval", "approve", approval, "--yes", *root).code == 0
    report = preflight(run, root, tmp_path, SETTINGS)
    assert of_step(report, "publish")["now"]["effect"] == "allow"
    work("order-1")
    assert preflight(run, root, tmp_path, SETTINGS)["runs"] == 0


def test_the_input_is_that_of_now_not_that_of_then(host: TestHost, run: Run, root: list[str], tmp_path: Path) -> None:
    """Who comes back after long needs a person's word for what cannot be undone; no recorded input knows of that."""
    asked()
    host.advance(500)
    told = {}
    for seconds in (400, 4000):
        settings = {**ask_no_more(), "resume": {"ask_after_parked_seconds": seconds}}
        told[seconds] = of_step(preflight(run, root, tmp_path, settings), "publish")["candidate"]
    assert (told[400]["effect"], told[400]["reasons"]) == ("require_approval", ["long_park_needs_approval"])
    assert told[4000]["effect"] == "allow"


def test_the_time_is_that_of_now(host: TestHost, run: Run, root: list[str], tmp_path: Path) -> None:
    asked()
    host.advance(300)
    rules = Path(folder(tmp_path, SETTINGS)) / "stepgrant" / "clock.rego"
    at = host.clock.now() // 1000
    rules.write_text(
        f'package stepgrant.rules.clock\n\ndeny contains "too_late" if input.time.unix >= {at}\n\n'
        f'deny contains "attested_late" if input.identity.attested_at >= {at}\n',
        encoding="utf-8",
    )
    done = run("policy", "preflight", str(rules.parents[1]), "--json", *root)
    rules.unlink()
    assert [one["candidate"]["reasons"] for one in done.json["actions"]] == [["attested_late", "too_late"]] * 2


def test_a_step_in_doubt_is_asked_of_nobody(run: Run, root: list[str], tmp_path: Path) -> None:
    @stepgrant.tool(effect="once", name="card.charge", step_id="charge")
    def charge(amount: int) -> str:
        raise ConnectionError(f"no answer for {amount}")

    def charges() -> None:
        with stepgrant.run("order-3", agent="clerk"):
            with pytest.raises(ConnectionError):
                charge(100)
            charge(100)

    with pytest.raises(stepgrant.InDoubt):
        charges()
    report = preflight(run, root, tmp_path, with_(agents={}))
    assert [(one["step"], one["why"]) for one in report["not_asked"]] == [("charge", "in_doubt")]
    assert [one["step"] for one in report["actions"]] == ["~resume"]


def test_people_read_what_changes(run: Run, root: list[str], tmp_path: Path) -> None:
    approval = asked()
    done = run("policy", "preflight", folder(tmp_path, with_(agents={})), *root)
    assert done.code == 0
    for words in ("order-1", "require_approval [tool_needs_approval]", "deny [", f"{approval} (pending)",
                  "would be of no use", "2 next actions of 1 parked run: 2 would be decided otherwise"):  # fmt: skip
        assert words in done.out
    assert run("policy", "preflight", str(tmp_path / "nowhere"), *root).code == ExitCode.NOT_FOUND
