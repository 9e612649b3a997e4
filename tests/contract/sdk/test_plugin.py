"""The pytest plugin, as somebody's own tests use it: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

PLUGIN = "stepgrant.testing.plugin"
OTHERS = ("-p", "no:schemathesis", "-p", "no:langsmith_plugin")
"""Plugins of other packages that take seconds to load."""
INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
TESTS = '''
import asyncio
import pytest
import stepgrant
from stepgrant.errors import ApprovalRequired, Denied

@stepgrant.tool
def charge(invoice: str, amount: int) -> dict:
    return {"invoice": invoice, "step": stepgrant.current_step().key}

@stepgrant.tool
async def refund(invoice: str) -> str:
    return invoice

def agent() -> dict:
    """What is tested: it knows nothing of tests."""
    with stepgrant.run("order-1", agent="billing"):
        return charge("inv_9", 42)

def test_of_one_tool(stepgrant_run):
    assert charge("inv_9", 42) == {"invoice": "inv_9", "step": "charge-1"}
    assert stepgrant_run.epoch == 1

async def test_of_one_coroutine_tool(stepgrant_run):
    assert await refund("inv_9") == "inv_9"

def test_of_the_agent(stepgrant_broker):
    stepgrant_broker.allow("billing", {"charge": "once"})
    assert agent()["invoice"] == "inv_9"

def test_nothing_is_allowed_by_itself(stepgrant_broker):
    stepgrant_broker.allow("billing", {})
    with pytest.raises(Denied):
        agent()

def test_a_person(stepgrant_broker):
    stepgrant_broker.allow("billing", {"charge": {"effect": "once", "ask": True}})
    with pytest.raises(ApprovalRequired) as asked:
        agent()
    stepgrant_broker.approve(asked.value.approval_id)
    assert agent()["invoice"] == "inv_9"

def test_tests_are_apart(stepgrant_broker):
    assert stepgrant_broker.host.runs() == ()
'''


def test_plugin_gives_a_broker_to_each_test(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(INI, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STEPGRANT_"))}
    found_by_itself = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    named = [] if found_by_itself else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OTHERS, *named, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=kept, check=False, capture_output=True, text=True, timeout=150)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
