"""The pytest plugin, as somebody's own tests use it: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from stepgrant.errors import ConfigurationError, Denied
from stepgrant.testing import TestBroker

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


FORGETFUL = """
import stepgrant

@stepgrant.tool
def charge(invoice: str) -> str:
    return invoice

def agent(name):
    with stepgrant.run("order-1", agent=name):
        return charge("inv_9")

def test_nothing_allowed(stepgrant_broker):
    agent("billing")

def test_no_agent(stepgrant_broker):
    stepgrant_broker.key_of("billing")
    agent("billing")

def test_another_tool(stepgrant_broker):
    stepgrant_broker.allow("billing", {"refund": "once"})
    agent("billing")

def test_another_agent(stepgrant_broker):
    stepgrant_broker.allow("billing", {"charge": "once"})
    stepgrant_broker.allow("support", {})
    agent("billing")

def test_its_own_cause(stepgrant_broker):
    stepgrant_broker.allow("billing", {"refund": "once"})
    try:
        agent("billing")
    except stepgrant.Denied as denied:
        raise RuntimeError("the agent's own") from denied

def test_of_something_else(stepgrant_broker):
    stepgrant_broker.allow("billing", {"charge": {"effect": "once", "ask": True}})
    agent("billing")

def test_without_a_broker():
    raise ValueError("the test's own")
"""
ALLOW = 'stepgrant_broker.allow("billing", {"charge": "once"}) (or "idempotent", or "read")'
NOTES = [
    f"no agent was allowed anything yet: begin the test with {ALLOW}",
    f"this test did not allow this agent: {ALLOW}. Allowed is: nothing",
    f"this test did not allow that: {ALLOW}. Allowed is: billing: refund (once)",
    (
        "STEPGRANT_WORKLOAD_KEY is the key of 'support', the agent that was allowed last; for another one call "
        "stepgrant_broker.key_of(agent) first, or use stepgrant_broker.run(key, agent=...). "
        "Allowed is: billing: charge (once); support: no tool"
    ),
    f"this test did not allow that: {ALLOW}. Allowed is: billing: refund (once)",
]


def theirs(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Somebody's tests, in a pytest of their own."""
    (folder / "test_theirs.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STEPGRANT_"))}
    found_by_itself = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    named = [] if found_by_itself else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OTHERS, *named, str(folder)]
    return subprocess.run(command, cwd=folder, env=kept, check=False, capture_output=True, text=True, timeout=150)


def test_plugin_gives_a_broker_to_each_test(tmp_path: Path) -> None:
    done = theirs(tmp_path, TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_who_forgot_to_allow_something_is_told_so(tmp_path: Path) -> None:
    done = theirs(tmp_path, FORGETFUL)
    assert "7 failed" in done.stdout, done.stdout + done.stderr
    # Where CI is set, pytest's summary says them again.
    told = [line.removeprefix("E").strip() for line in done.stdout.splitlines() if line.startswith("E ")]
    notes = [line for line in told if line.startswith("stepgrant_broker: ")]
    assert notes == [f"stepgrant_broker: {note}" for note in NOTES]


def test_tools_are_given_with_their_effects(broker: TestBroker) -> None:
    tools: Any = ["charge"]
    with pytest.raises(ConfigurationError, match="takes each tool with its effect, like"):
        broker.allow("agent", tools)
    broker.explain(denied := Denied(tool="charge", step="charge-1", run="run_1", reasons=["tool_not_listed"]))
    assert denied.__notes__[0].endswith("Allowed is: nothing")
