"""`stepgrant decision replay` over the real broker: decisions are made again, and what was changed is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from clerks import SETTINGS
from commandline import Done
from replays import ask_no_more, asked, folder, work
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.policy import engines
from stepgrant_broker.testing import TestHost

Run = Callable[..., Done]
REPLAY = ("decision", "replay", "--json")


def approved(run: Run, root: list[str], key: str = "order-1") -> None:
    """A run that asked, was parked, came back and was allowed."""
    assert run("approval", "approve", asked(key), "--yes", *root).code == 0
    work(key)


@contextmanager
def database(host: TestHost) -> Iterator[sqlite3.Connection]:
    """The database in the hands of somebody who stole it."""
    with closing(sqlite3.connect(host.settings.database_file)) as db, db:
        yield db


def test_every_decision_of_a_run_comes_out_as_recorded(host: TestHost, run: Run, root: list[str]) -> None:
    approved(run, root)
    before = [len(host.entries(one.id)) for one in host.runs()]
    done = run(*REPLAY, "--run", "order-1", *root)
    assert done.code == 0
    value = done.json
    assert (value["holds"], value["findings"], value["decisions"], value["equal"]) == (True, [], 5, 5)
    assert value["engine_assumed"] == 2
    assert [len(host.entries(one.id)) for one in host.runs()] == before
    assert (
        "5 decisions: 5 as recorded (2 of opening and resuming"
        in run("decision", "replay", "--run", "order-1", *root).out
    )


def test_what_was_decided_once_is_decided_so_after_policy_and_time_have_moved_on(
    host: TestHost, run: Run, root: list[str]
) -> None:
    approved(run, root)
    host.set_settings({**SETTINGS, "agents": {}})
    # The answer is no longer valid, the lease is over, the day is another one.
    host.advance(500)
    done = run(*REPLAY, "--since", "2020-01-01", *root)
    assert (done.code, done.json["equal"], done.json["decisions"]) == (0, 5, 5)
    assert run(*REPLAY, "--since", "2999-01-01T00:00:00Z", *root).json["decisions"] == 0


def test_a_denial_by_a_person_and_a_refused_opening_are_made_again_too(
    host: TestHost, run: Run, root: list[str]
) -> None:
    assert run("approval", "deny", asked(), "--yes", *root).code == 0
    with pytest.raises(stepgrant.Denied):
        work("order-1")
    host.set_settings({**SETTINGS, "agents": {}})
    with pytest.raises(stepgrant.Denied):
        work("order-2")
    value = run(*REPLAY, "--since", "2020-01-01", *root).json
    assert (value["holds"], value["equal"], value["decisions"]) == (True, 6, 6)
    events = [event for event in host.entries() if event.type == "decision"]
    (refused,) = (event.part("decision")["decision_id"] for event in events)
    one = run(*REPLAY, str(refused), *root).json
    assert (one["decisions"], one["equal"]) == (1, 1)


def test_one_decision_is_found_by_its_id_alone(host: TestHost, run: Run, root: list[str]) -> None:
    asked()
    asked("order-2")
    (known,) = (one.id for one in host.runs() if one.key == "order-1")
    decisions = [str(one.part("decision")["decision_id"]) for one in host.entries(known) if one.type == "decision"]
    done = run(*REPLAY, decisions[0], *root)
    assert (done.code, done.json["decisions"], done.json["equal"]) == (0, 1, 1)
    assert run("decision", "replay", "dec_" + "0" * 26, *root).code == ExitCode.NOT_FOUND
    assert run("decision", "replay", *root).code == ExitCode.USAGE
    assert run("decision", "replay", "--since", "yesterday", *root).code == ExitCode.USAGE


def test_an_approver_sees_all_but_the_tenants_own_chain(run: Run, people: Any, root: list[str]) -> None:  # noqa: ANN401
    asked()
    assert root
    client = ["--client", people.file("ann", "approver")]
    value = run(*REPLAY, "--since", "2020-01-01", *client).json
    assert (value["holds"], len(value["notes"])) == (True, 1)
    assert "only an operator" in value["notes"][0]


CHANGED_TEXTS = (
    "CAST(replace(CAST(text AS TEXT), 'tool_needs_approval', 'tool_needs_nobody') AS BLOB)",
    "x'00ff'",
    "'no bytes'",
)


def test_a_changed_policy_text_is_named_and_nothing_is_equal_by_it(host: TestHost, run: Run, root: list[str]) -> None:
    asked()
    for changed in CHANGED_TEXTS:
        with database(host) as db:
            db.execute(f"UPDATE policies SET text = {changed}")  # noqa: S608 - the test's own words
        done = run(*REPLAY, "--run", "order-1", *root)
        assert (done.code, done.json["tampered"], done.json["equal"]) == (ExitCode.REFUSED, 3, 0), changed
        assert {one["why"] for one in done.json["findings"]} == {"policy_text_changed"}
    preflight = run("policy", "preflight", str(read_folder(host)), *root)
    assert (preflight.code, "is another one" in preflight.err) == (ExitCode.REFUSED, True)
    with database(host) as db:
        db.execute("DELETE FROM policies")
    done = run(*REPLAY, "--run", "order-1", *root)
    assert (done.code, done.json["not_replayable"], done.json["equal"]) == (ExitCode.REFUSED, 3, 0)
    assert {one["why"] for one in done.json["findings"]} == {"policy_text_missing"}


def read_folder(host: TestHost) -> Path:
    return Path(folder(host.settings.data_dir, SETTINGS))


def test_an_erased_input_is_told_as_not_replayable_and_a_changed_one_as_tampered_with(
    host: TestHost, run: Run, root: list[str]
) -> None:
    asked()
    with database(host) as db:
        inputs = [c for (c,) in db.execute("SELECT c FROM payloads WHERE field = 'decision.input' ORDER BY rowid")]
        db.execute("DELETE FROM payloads WHERE c IN (?, ?)", inputs[:2])
        db.execute("UPDATE payloads SET body = CAST(replace(hex(body), '1', '2') AS BLOB) WHERE c = ?", (inputs[2],))
    done = run(*REPLAY, "--run", "order-1", *root)
    assert done.code == ExitCode.REFUSED
    assert {one["why"]: one["verdict"] for one in done.json["findings"]} == {
        "input_erased": "not_replayable",
        "input_changed": "tampered",
    }
    assert [done.json[name] for name in ("equal", "not_replayable", "tampered", "decisions")] == [0, 2, 1, 3]


def test_a_chain_that_was_cut_is_named_by_its_place(host: TestHost, run: Run, root: list[str]) -> None:
    asked()
    with database(host) as db:
        db.execute("DELETE FROM entries WHERE chain <> '' AND seq = 2")
    done = run(*REPLAY, "--since", "2020-01-01", *root)
    assert done.code == ExitCode.REFUSED
    (finding,) = (one for one in done.json["findings"] if one["why"] == "chain_broken")
    assert (finding["verdict"], finding["seq"], finding["run"]) == ("tampered", 2, host.runs()[0].id)


def test_another_engine_never_answers_in_place_of_the_recorded_one(
    run: Run, root: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked()
    monkeypatch.setattr(engines, "ENGINE", "regorus/0.0.1")
    done = run(*REPLAY, "--run", "order-1", *root)
    assert done.code == ExitCode.REFUSED
    assert (done.json["not_replayable"], done.json["equal"]) == (3, 0)
    assert {one["why"] for one in done.json["findings"]} == {"engine_missing"}
    assert "decided; here are regorus/0.0.1" in done.json["findings"][1]["detail"]


def test_a_candidate_lists_what_it_would_have_decided_otherwise(run: Run, root: list[str], tmp_path: Path) -> None:
    approved(run, root)
    words = ("--run", "order-1", "--candidate", folder(tmp_path, ask_no_more()))
    done = run(*REPLAY, *words, *root)
    assert (done.code, done.json["holds"]) == (0, True)
    told = done.json["candidate"]
    assert (told["changed"], [one["tool"] for one in told["changes"]]) == (2, ["file.publish"] * 2)
    assert [(one["from"], one["to"]) for one in told["changes"]] == [("require_approval", "allow"), ("allow", "allow")]
    assert told["changes"][1]["recorded_reasons"][-1].startswith("approved:apr_")
    out = run("decision", "replay", *words, *root).out
    for text in ("require_approval", "file.publish", "5 decisions: 5 as recorded"):
        assert text in out
    same = ("--run", "order-1", "--candidate", folder(tmp_path, SETTINGS))
    assert run(*REPLAY, *same, *root).json["candidate"]["changed"] == 0
    assert "the candidate changes nothing" in run("decision", "replay", *same, *root).out
    rule = Path(words[-1]) / "stepgrant" / "extra.rego"
    rule.write_text("package stepgrant.rules.extra\n\nbroken(", encoding="utf-8")
    broken = run(*REPLAY, *words, *root)
    assert (broken.code, broken.out, "does_not_compile" in broken.err) == (ExitCode.REFUSED, "", True)


def test_a_receipt_and_a_public_key_are_enough(
    run: Run, root: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(run, root)
    run("receipt", "get", "order-1", "--out", "r.json", *root)
    run("ledger", "keys", "--out", "keys.json", *root)
    run("receipt", "get", "order-1", "--step", "publish", "--out", "step.json", *root)
    # Whoever got the file knows no broker.
    monkeypatch.delenv("STEPGRANT_URL")
    offline = ("--receipt", "r.json", "--key", "keys.json")
    done = run(*REPLAY, *offline, "--candidate", folder(tmp_path, ask_no_more()))
    assert (done.code, done.json["equal"], done.json["candidate"]["changed"]) == (0, 5, 2)
    changed = (tmp_path / "r.json").read_bytes().replace(b"tool_needs_approval", b"tool_needs_an_answer")
    (tmp_path / "changed.json").write_bytes(changed)
    refused = run(*REPLAY, "--receipt", "changed.json", "--key", "keys.json")
    assert (refused.code, refused.out, "receipt_invalid" in refused.err) == (ExitCode.REFUSED, "", True)
    for words in (("--receipt", "r.json"), ("--key", "keys.json", "--run", "order-1"), (*offline, "--run", "order-1")):
        assert run(*REPLAY, *words).code == ExitCode.USAGE
    assert run(*REPLAY, "--receipt", "nowhere", "--key", "keys.json").code == ExitCode.NOT_FOUND
    assert run(*REPLAY, "--receipt", "step.json", "--key", "keys.json").code != 0


def test_an_erased_run_is_not_replayable_and_hides_no_other(run: Run, root: list[str]) -> None:
    approved(run, root)
    assert run("run", "erase", "order-1", "--yes", *root).code == 0
    alone = run(*REPLAY, "--run", "order-1", *root)
    assert (alone.code, alone.json["not_replayable"], alone.json["equal"]) == (ExitCode.REFUSED, 5, 0)
    assert {one["why"] for one in alone.json["findings"]} == {"input_erased"}
    asked("order-2")
    both = run(*REPLAY, "--since", "2020-01-01", *root)
    counts = [both.json[name] for name in ("equal", "not_replayable", "tampered", "different")]
    assert (both.code, counts) == (0, [3, 5, 0, 0])
