"""Receipts: taken home, and checked without asking anybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from commandline import Done
from desk import Desk
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


def test_unfinished_run_says_that_more_may_come(run: Run, tmp_path: Path) -> None:
    story = Story()
    story.opened()
    (tmp_path / "r.json").write_bytes(dumps(story.receipt()))
    (tmp_path / "k.json").write_bytes(dumps(story.book.jwks))
    done = run("receipt", "verify", str(tmp_path / "r.json"), "--key", str(tmp_path / "k.json"))
    assert "The run had not ended: more may have come since." in done.out


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
