"""`stepgrant run erase`, `keys rotate wrap` and `keys rewrap` beside a running broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from commandline import Done
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Done]
MARK = "what only the input says"


def worked(key: str) -> str:
    """A finished run with an input."""

    @stepgrant.tool(effect="read", name="book.read")
    def read(page: int) -> int:
        return page

    with stepgrant.run(key, agent="clerk", input={"said": MARK}) as run:
        assert read(1) == 1
    return run.id


def disclosed(name: str) -> list[dict[str, Any]]:
    return list(json.loads(Path(name).read_text(encoding="utf-8"))["disclosures"])


def broker_has_seen_it(run: Run) -> None:
    """The running broker wraps under the new key from its next sweep on; before that the old one may not be deleted."""
    for number in range(60):
        worked(f"seen-{number}")
        if run("keys", "rewrap", "--json").json["chain_keys"] == 0:
            return
        time.sleep(0.2)
    raise AssertionError("the broker goes on wrapping under the old key")


@pytest.mark.usefixtures("beside")
def test_a_new_wrap_key_takes_over_and_the_old_one_can_go(run: Run, tmp_path: Path, root: list[str]) -> None:
    """A broker runs all the while. What was done before is read under the new key, and so is what comes after."""
    first = worked("first")
    made = run("keys", "rotate", "wrap", "--json")
    assert (made.code, made.json["purpose"]) == (0, "wrap")
    worked("second")
    done = run("keys", "rewrap", "--json")
    assert (done.code, done.json["key_id"], done.json["left"]) == (0, made.json["key_id"], 0)
    assert done.json["chain_keys"] >= 2
    assert "nothing is left under older keys" in run("keys", "rewrap").out
    broker_has_seen_it(run)
    (tmp_path / "broker" / "keys" / "wrap-1.key").unlink()
    worked("third")
    assert run("receipt", "get", first, "--out", "first.json", *root).code == 0
    assert "run.input" in {one["field"] for one in disclosed("first.json")}
    assert run("ledger", "verify").code == 0


@pytest.mark.usefixtures("beside")
def test_a_run_is_erased_once_and_for_all(run: Run, tmp_path: Path, root: list[str]) -> None:
    erased = worked("order-1729")
    assert run("run", "erase", "order-1729", *root).code != 0, "it asks first"
    done = run("run", "erase", "order-1729", "--yes", "--json", *root)
    assert (done.code, done.json["run"], done.json["state"]) == (0, erased, "completed")
    assert run("run", "erase", "order-1729", "--yes", "--json", *root).json == done.json
    assert run("run", "erase", "nobody", "--yes", *root).code == ExitCode.NOT_FOUND
    assert run("receipt", "get", erased, "--out", "erased.json", *root).code == 0
    assert disclosed("erased.json") == []
    assert "erased" in run("run", "show", "order-1729", *root).out
    assert run("ledger", "verify").code == 0
    files = [path.read_bytes() for path in (tmp_path / "broker").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in files)
