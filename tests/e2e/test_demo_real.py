"""The real demo as people run it: it holds beside real OPA, Vault and PostgreSQL, in time, and leaves nothing behind.

And once with a Vault that drops no login: it has to say so, and to fail. `test_demo_real_checks.py` does that for each
check by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant_demo_real
import stepgrant_services
from services import ENVIRONMENT

pytestmark = [pytest.mark.needs("opa", "vault", "postgres"), pytest.mark.timeout(400)]

PATHS = [Path(package.__file__ or "").resolve().parent.parent for package in (stepgrant_demo_real, stepgrant_services)]
PLANTED = """
import sys
from stepgrant_demo_real import story, vaulting
from stepgrant_demo_real.show import main
vaulting.REVOCATION = vaulting.REVOCATION.replace('DROP ROLE IF EXISTS "{{name}}";', '')
def finished(_):
    raise story.Broken("seen enough")
story.finished = finished
sys.exit(main(["--json", "--limit", "300"]))
"""
"""The demo with roles in Vault that confirm a revocation and leave the login where it is, up to where it is found."""

CHECKS = 57
CLAIMS = (
    "they are three servers",
    "two brokers share one database",
    "`stepgrant doctor` finds nothing wrong",
    "five kinds of login, each with other rights",
    "without a grant the database lets nobody in, and Vault has given out nothing",
    "it holds a login that the database knows, and was not let in with it yet",
    "its login is gone before the next one is made",
    "the dead agent's session goes on waiting to write them",
    "login and session are ended before it could",
    "the next agent looked, and made what was missing",
    "the settings are copied, and neither agent nor broker know",
    "the next agent looked, and did not copy them again",
    "the login gives no right but that of its step",
    "the stolen login was gone before the next one was made",
    "the thief's open session was ended by the database",
    "the password that it kept lets nobody in",
    "it was killed, the other one runs",
    "the agent goes on over the other one, to the end",
    "each piece of work was done exactly once",
    "each epoch's logins were dead before the next epoch had one",
    "`stepgrant ledger verify` finds nothing",
    "a fresh process verifies it with the public key alone",
    "no login of the run exists",
    "no lease and no per-grant token",
    "no secret in databases, logs, audit log or output",
    "no process is left",
    "it took no longer than 300 s",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """For everything that the demo makes. PostgreSQL of root runs as another user and must be able to pass through."""
    made = Path(tempfile.mkdtemp(prefix="stepgrant-demo-real-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def run(folder: Path, *command: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, what it said in JSON, and on stderr."""
    environment = {**ENVIRONMENT, **os.environ, "TMPDIR": str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, PATHS), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=350, check=False
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_the_whole_story_holds_and_leaves_nothing_behind(folder: Path) -> None:
    # Other tests run beside it.
    code, told, errors = run(folder, "-m", "stepgrant_demo_real", "--json", "--limit", "300")
    assert told["failed"] == []
    assert (code, told["ok"], errors) == (0, True, "")
    assert {made["claim"] for made in told["checks"]} >= set(CLAIMS)
    assert told["held"] == len(told["checks"]) == CHECKS
    assert list(folder.iterdir()) == []


def test_a_login_that_stays_is_named_and_fails_it(folder: Path) -> None:
    code, told, _ = run(folder, "-c", PLANTED)
    assert code == 1
    assert told["ok"] is False
    assert told["failed"] == ["its login is gone before the next one is made", "the story could be told to its end"]
    evidence = {made["claim"]: made["evidence"] for made in told["checks"]}
    assert "it was still there for" in evidence["its login is gone before the next one is made"]
    assert [path.name for path in folder.iterdir()] == [Path(told["folder"]).name]
