"""Receipts: taken home, and checked without asking anybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from commandline import Done
from desk import Desk
from receipts import digest, jcs
from stepgrant.canonical import dumps
from stepgrant.cli.exits import ExitCode
from stories import Run as Story
from stories import eventful

Run = Callable[..., Done]


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


def test_what_was_not_compared_is_said(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    step, grant = tmp_path / "step.json", tmp_path / "grant.json"
    step.write_bytes(dumps(files.story.logged(scope=("step", "charge"))))
    grant.write_bytes(dumps(files.story.logged(scope=("grant", "grn_3"))))
    words = ("receipt", "verify", str(step), "--key", str(files.keys), "--earlier")
    told = run(*words, str(files.receipt)).out
    assert "It has 7 of the earlier receipt's 30 entries" in told
    assert "It continues" not in told
    nothing = run(*words, str(grant))
    assert nothing.code == ExitCode.REFUSED
    assert "nothing_to_compare" in nothing.err


def test_unfinished_run_says_that_more_may_come(run: Run, tmp_path: Path) -> None:
    story = Story()
    story.opened()
    (tmp_path / "r.json").write_bytes(dumps(story.receipt()))
    (tmp_path / "k.json").write_bytes(dumps(story.book.jwks))
    done = run("receipt", "verify", str(tmp_path / "r.json"), "--key", str(tmp_path / "k.json"))
    assert "Missing: the run had not ended when it was made: more may have come since." in done.out


def test_show_tells_story_steps_and_verdict(run: Run, files: SimpleNamespace) -> None:
    done = run("receipt", "show", str(files.receipt), "--key", str(files.keys))
    assert done.code == 0
    order = [
        "run order-1729  agent rotator  completed",
        "step 3. charge: done",
        "credential  grn_2, jwt: revoked at 2027-01-15T08:00:03Z: its holder went silent; its issuer confirmed",
        "step 4. publish: completed",
        "person Ada Lovelace (opr_1) approved it at 2027-01-15T08:01:05Z, saying looks right",
        "its text is not in this receipt",
        "The receipt holds: 30 entries",
        "Missing: the text of policy revision",
        "It does not prove:",
    ]
    places = [done.out.index(one) for one in order]
    assert places == sorted(places)


def test_show_for_machines(run: Run, files: SimpleNamespace) -> None:
    value = run("receipt", "show", str(files.receipt), "--key", str(files.keys), "--json").json
    assert [step["key"] for step in value["steps"]] == ["plan", "read", "charge", "publish"]
    publish = value["steps"][3]
    assert publish["approvals"][0]["answers"][0]["who"]["subject"] == "Ada Lovelace"
    assert publish["grants"][0]["jti"] == "grn_3"
    assert "policy" not in publish["decisions"][0]
    assert [gap["code"] for gap in value["missing"]] == ["not_logged", "no_policy_text"]


@pytest.fixture
def with_policy(tmp_path: Path) -> SimpleNamespace:
    """A receipt whose decisions have their policy's text."""
    texts = {"main.rego": "package stepgrant\n\tallow\x1b[2J\n"}
    listing = jcs([{"digest": digest(texts["main.rego"].encode()), "path": "main.rego"}])
    story = Story()
    named = {"effect": "allow", "reasons": ["ok"], "policy_revision": f"1:{digest(listing)}", "decision_id": "dec_1"}
    body = {"run_key": "k", "workload": "w", "labels": {}, "attestation": {"method": "enrolled_key"}}
    story.add(0, "run_opened", decision=named, body=body)
    story.ended(5)
    policies = [{"revision": f"1:{digest(listing)}", "files": texts}]
    receipt, keys = tmp_path / "p.json", tmp_path / "pk.json"
    receipt.write_bytes(dumps(story.logged(change=lambda value: value.update(policies=policies))))
    keys.write_bytes(dumps(story.book.jwks))
    return SimpleNamespace(receipt=receipt, keys=keys)


def test_show_prints_policy_texts_when_asked_and_nothing_that_acts_on_a_terminal(
    run: Run, with_policy: SimpleNamespace
) -> None:
    words = ["receipt", "show", str(with_policy.receipt), "--key", str(with_policy.keys)]
    assert "package stepgrant" not in run(*words).out
    done = run(*words, "--policies")
    assert "  --- main.rego\n  package stepgrant\n      allow\\x1b[2J\n" in done.out
    assert "Missing" not in done.out


def test_each_command_writes_the_page(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("show", "verify"):
        page = tmp_path / f"{name}.html"
        done = run("receipt", name, str(files.receipt), "--key", str(files.keys), "--html", str(page))
        assert (done.code, f"page written to {page}" in done.err) == (0, True)
        assert "The receipt holds" in page.read_text(encoding="utf-8")
        assert page.stat().st_mode & 0o777 == 0o600
        again = run("receipt", name, str(files.receipt), "--key", str(files.keys), "--html", str(page))
        assert again.code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["show", "verify"])
def test_a_receipt_that_does_not_hold_is_not_rendered(
    run: Run, files: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    good = files.receipt.read_bytes()
    bad, page = tmp_path / "bad.json", tmp_path / "page.html"
    for place in range(10, len(good), len(good) // 10):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        done = run("receipt", name, str(bad), "--key", str(files.keys), "--html", str(page))
        assert (done.code, done.out, page.exists()) == (ExitCode.REFUSED, "", False)


def test_a_page_of_what_was_just_taken_warns_of_the_brokers_own_keys(run: Run, desk: Desk, tmp_path: Path) -> None:
    story = eventful()
    desk.says("GET /v1/runs/run_1/receipt", story.receipt())
    desk.says("GET /v1/ledger/keys", story.book.jwks)
    done = run("receipt", "get", "run_1", "--html", "page.html")
    assert (done.code, done.out) == (0, "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The public keys came from the broker that made this receipt" in page
    assert run("receipt", "get", "run_1", "--html", "two.html", "--out", "r.json", "--json").json["html"] == "two.html"
    assert (tmp_path / "r.json").exists()
    taken = run("receipt", "get", "run_1", "--html", "four.html", "--out", "r.json")
    assert (taken.code, (tmp_path / "four.html").exists()) == (ExitCode.USAGE, False)
    desk.says("GET /v1/ledger/keys", eventful().book.jwks)
    refused = run("receipt", "get", "run_1", "--html", "three.html", "--out", "s.json")
    assert (refused.code, (tmp_path / "three.html").exists()) == (ExitCode.REFUSED, False)
    assert not (tmp_path / "s.json").exists()


def test_a_part_tells_no_state_of_the_run(run: Run, files: SimpleNamespace, tmp_path: Path) -> None:
    part = tmp_path / "part.json"
    part.write_bytes(dumps(files.story.logged(scope=("step", "charge"))))
    done = run("receipt", "show", str(part), "--key", str(files.keys))
    assert "part of run_01; times count from its first entry" in done.out
    assert "agent rotator  " not in done.out
    assert "Missing: it is about one step: what else the run did is not in it." in done.out


def test_an_erased_run_is_shown_as_erased(run: Run, tmp_path: Path) -> None:
    story = eventful()
    story.add(90_000, "run_erased", by=("person", None), cause="retention", body={})
    (tmp_path / "e.json").write_bytes(dumps(story.logged(change=lambda v: v.update(disclosures=[], complete=True))))
    (tmp_path / "k.json").write_bytes(dumps(story.book.jwks))
    done = run("receipt", "verify", str(tmp_path / "e.json"), "--key", str(tmp_path / "k.json"))
    assert "The values of this run were erased at 2027-01-15T08:01:30Z by a person (retention)." in done.out
    assert "It is complete" in done.out


def test_receipt_and_keys_are_taken_home(run: Run, desk: Desk, tmp_path: Path) -> None:
    story = eventful()
    desk.says("GET /v1/runs/run_1/receipt", story.receipt())
    desk.says("GET /v1/ledger/keys", story.book.jwks)
    assert run("receipt", "get", "run_1", "--out", "r.json").out == "written to r.json\n"
    assert run("ledger", "keys", "--out", "k.json").code == 0
    assert run("receipt", "verify", "r.json", "--key", "k.json").code == 0
    printed = run("receipt", "get", "run_1").out
    assert printed.encode() == (tmp_path / "r.json").read_bytes() + b"\n"
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600
    assert run("receipt", "get", "run_1", "--out", "r.json").code == ExitCode.USAGE


def test_whoami(run: Run, desk: Desk) -> None:
    desk.says(
        "GET /v1/whoami", {"id": "opr_1", "name": "Ada", "tenant": "default", "roles": ["approver"], "groups": []}
    )
    done = run("whoami")
    assert done.out.splitlines()[0] == "Ada"
    assert ".stepgrant/operator.json" in done.out
