"""`stepgrant keys` beside a running broker: rotated, exported, revoked; and what an auditor makes of old receipts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import stepgrant
from commandline import Done
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.testing import TestHost

Run = Callable[..., Done]
PATIENCE_S = 90.0


def worked(key: str) -> str:
    """A finished run."""

    @stepgrant.tool(effect="read", name="book.read")
    def read(page: int) -> int:
        return page

    with stepgrant.run(key, agent="clerk") as run:
        assert read(1) == 1
    return run.id


def newest(run: Run, purpose: str) -> dict[str, Any]:
    listed = run("keys", "list", "--json").json["keys"]
    return dict([one for one in listed if one["purpose"] == purpose][-1])


def published(host: TestHost, path: str, kid: str, *, there: bool) -> None:
    """Wait until the running broker publishes this key, or does not any more."""
    end = time.monotonic() + PATIENCE_S
    while (kid in [key["kid"] for key in httpx.get(f"{host.url}{path}").json()["keys"]]) is not there:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_running_broker_follows_and_old_receipts_verify(beside: TestHost, run: Run, root: list[str]) -> None:
    first = worked("first")
    assert run("receipt", "get", first, "--out", "first.json", *root).code == 0
    old = newest(run, "heads")
    made = run("keys", "rotate", "heads", "--json")
    assert (made.code, made.json["number"], made.json["kid"] != old["kid"]) == (0, 2, True)
    published(beside, "/v1/ledger/keys", made.json["kid"], there=True)
    assert made.json["vkey"] in httpx.get(f"{beside.url}/v1/log/keys").text.splitlines()
    settling = run("keys", "rotate", "heads")
    assert (settling.code, "rotate again after that" in settling.err) == (ExitCode.CONFLICT, True)
    assert run("keys", "rotate", "nonsense").code == ExitCode.NOT_FOUND

    assert run("keys", "export", "--out", "keys.json").code == 0
    assert run("keys", "export", "--out", "keys.json").code != 0  # it replaces nothing
    exported = json.loads(Path("keys.json").read_text(encoding="utf-8"))
    assert [(one["purpose"], one["number"]) for one in exported["keys"]] == [
        ("access", 1), ("grants", 1), ("heads", 1), ("heads", 2),
    ]  # fmt: skip
    assert '"d"' not in Path("keys.json").read_text(encoding="utf-8")
    assert run("receipt", "verify", "first.json", "--key", "keys.json").code == 0
    assert "followed by a newer one" in run("keys", "list").out


def test_a_stolen_key_is_revoked_and_receipts_are_made_again(beside: TestHost, run: Run, root: list[str]) -> None:
    first = worked("first")
    assert run("receipt", "get", first, "--out", "before.json", *root).code == 0
    old = newest(run, "heads")
    assert run("keys", "revoke", old["kid"]).code == ExitCode.USAGE  # nobody can be asked here
    assert newest(run, "heads") == old
    gone = run("keys", "revoke", old["kid"], "--note", "stolen", "--yes", "--json")
    assert (gone.code, gone.json["kid"], gone.json["revoked_at"] > 0) == (0, old["kid"], True)
    published(beside, "/v1/ledger/keys", old["kid"], there=False)
    worked("second")
    assert run("keys", "export", "--out", "keys.json").code == 0

    refused = run("receipt", "verify", "before.json", "--key", "keys.json")
    assert (refused.code, "key_revoked" in refused.err, "stepgrant receipt get" in refused.err) == (1, True, True)
    assert run("receipt", "get", first, "--out", "again.json", *root).code == 0
    assert run("receipt", "verify", "again.json", "--key", "keys.json").code == 0
    assert run("keys", "revoke", "nobody", "--yes").code == ExitCode.NOT_FOUND
    dashed = run("keys", "revoke", "-y" + "k" * 41, "--note", "an id of base64url can begin so", "--yes")
    assert (dashed.code, "-ykkk" in dashed.err) == (ExitCode.NOT_FOUND, True), dashed.err
    checked = run("ledger", "verify", "--json")
    assert (checked.code, checked.json["findings"]) == (0, []), checked.out


@pytest.mark.usefixtures("beside")
def test_a_command_beside_a_broker_does_not_wait_for_what_only_a_broker_needs() -> None:
    code = (
        "import sys; from stepgrant.cli.main import main\n"
        "code = main(['keys', 'list', '--json'])\n"
        "unneeded = {'alembic', 'fastapi', 'httpx', 'sqlalchemy.dialects.postgresql'}\n"
        "print(code, sorted(unneeded & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stderr.strip(), bool(json.loads(done.stdout)["keys"])) == ("0 []", True)
