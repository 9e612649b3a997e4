"""The package's face and its pytest plugin: what importing loads, what is public, and what is said without a broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stepgrant
from stepgrant import _failpoints
from stepgrant.testing import _host

OTHERS = {"stepgrant", "stepgrant.testing", "stepgrant.testing.plugin"}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=False, capture_output=True, text=True, timeout=120
    )


def test_public_names_are_pinned_and_sorted() -> None:
    assert stepgrant.__all__ == sorted(stepgrant.__all__)
    assert set(stepgrant.__all__) == {
        "Advice", "Agent", "ApprovalRequired", "AsyncAgent", "AsyncRun", "BrokerUnavailable",
        "ConfigurationError", "Credential",
        "CurrentStep",
        "Denied", "InDoubt", "Inject", "NotExecuted", "Run", "RunRef", "SecretInResult", "StaleEpoch", "StepFailed",
        "StepgrantError", "Timeouts", "ToolSpec", "Verdict", "__version__", "agent", "aguard_call",
        "current_credential",
        "current_step", "declare", "done", "errors", "guard_call", "http", "not_done", "run", "step", "testing",
        "tool", "unknown", "verify",
    }  # fmt: skip


def test_every_public_name_is_there_and_documented() -> None:
    for name in stepgrant.__all__:
        value = getattr(stepgrant, name)
        assert value.__doc__, name
        assert name in dir(stepgrant)
    with pytest.raises(AttributeError, match="module 'stepgrant' has no attribute 'nothing'"):
        _ = stepgrant.nothing


def test_importing_the_plugin_loads_nothing_else_of_the_package() -> None:
    """It is imported before any coverage tool is there: what it loaded would count as never run."""
    code = (
        "import sys, stepgrant.testing.plugin; print(*(n for n in sys.modules if n.partition('.')[0] == 'stepgrant'))"
    )
    done = python(code)

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == OTHERS


def test_importing_the_package_opens_no_library() -> None:
    code = "import sys, stepgrant; print(*({'httpx', 'h11', 'cryptography', 'jwt', 'msgspec'} & set(sys.modules)))"

    assert python(code).stdout.split() == []


def test_without_a_broker_tests_are_told_what_to_install() -> None:
    code = """
import sys
sys.modules["stepgrant_broker"] = None
from stepgrant.errors import ConfigurationError
from stepgrant.testing import TestBroker
try:
    TestBroker(None)
except ConfigurationError as error:
    print(error)
"""
    done = python(code)

    assert "install stepgrant[broker,embedded]" in done.stdout, done.stderr


def test_host_is_found_under_its_entry_point() -> None:
    assert _host.GROUP == "stepgrant.testing"


# ------------------------------------------------------------------------------------------------------- failpoints


def test_failpoint_off_does_nothing_and_on_tells_its_name() -> None:
    reached: list[str] = []
    _failpoints.hit("sdk.before_begin")
    with _failpoints.installed(reached.append):
        _failpoints.hit("sdk.before_begin")
        with _failpoints.installed(lambda name: reached.append(f"inner {name}")):
            _failpoints.hit("sdk.after_begin")
        _failpoints.hit("sdk.before_effect")
    _failpoints.hit("sdk.after_effect")

    assert reached == ["sdk.before_begin", "inner sdk.after_begin", "sdk.before_effect"]


HIT_TWICE = """
import sys
from stepgrant._failpoints import hit
hit("sdk.before_open")
hit("sdk.after_effect")
print("one", flush=True)
hit("sdk.after_effect")
print("two", flush=True)
"""


ORDERED = {"STEPGRANT_TEST": "1"}
SLEEP = "sdk.after_effect:sleep:60:2"


@pytest.mark.parametrize(("setting", "said"), [("sdk.after_effect:kill", ""), ("sdk.after_effect:kill:2", "one\n")])
def test_process_is_killed_where_the_environment_says(setting: str, said: str) -> None:
    done = python(HIT_TWICE, STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=setting)

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == said


@pytest.mark.parametrize(
    "environment",
    [
        {"STEPGRANT_TEST_FAILPOINT": "sdk.after_effect:kill"},
        {"STEPGRANT_TEST": "1"},
        {"STEPGRANT_TEST": "0", "STEPGRANT_TEST_FAILPOINT": "sdk.after_effect:kill"},
        {"STEPGRANT_TEST": "true", "STEPGRANT_TEST_FAILPOINT": "sdk.after_effect:kill"},
    ],
    ids=["no switch", "no place", "switch off", "another word"],
)
def test_one_stray_variable_kills_nothing(environment: dict[str, str]) -> None:
    assert python(HIT_TWICE, **environment).stdout == "one\ntwo\n"


@pytest.mark.parametrize(
    "setting",
    ["sdk.nowhere:kill", "sdk.after_effect", "sdk.after_effect:sleep", "sdk.after_effect:kill:0", "x:kill:two"],
)
def test_misspelt_failpoint_is_an_error(setting: str) -> None:
    done = python(HIT_TWICE, STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=setting)

    assert "is not <name>:kill[:n] (or raise, lost, sleep:<ms>) with a known name" in done.stderr
    assert done.stdout == ""


def test_a_place_raises_or_stands_still_and_says_so_first() -> None:
    done = python(HIT_TWICE, STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT="sdk.after_effect:raise:2")
    assert done.stdout == "one\n"
    told, _, traceback = done.stderr.partition("\n")
    assert json.loads(told) == {"event": "failpoint", "point": "sdk.after_effect", "action": "raise", "hit": 2}
    assert traceback.endswith("FailpointRaised: sdk.after_effect\n")

    timed = HIT_TWICE + "print(time.monotonic() - begun >= 0.05)"
    slept = python("import time; begun = time.monotonic()\n" + timed, **ORDERED, STEPGRANT_TEST_FAILPOINT=SLEEP)
    assert slept.stdout == "one\ntwo\nTrue\n"


def test_a_lost_reply_is_the_next_one_and_no_other() -> None:
    sends = """
import stepgrant._failpoints as points
for number in range(4):
    if number == 1:
        points.hit("sdk.before_effect")
    try:
        points.hit("sdk.after_send")
    except points.ReplyLost:
        print("lost", number)
"""
    ordered = {**ORDERED, "STEPGRANT_TEST_FAILPOINT": "sdk.before_effect:lost"}
    assert python(sends, **ordered).stdout == "lost 1\n"
    ordered["STEPGRANT_TEST_FAILPOINT"] = "sdk.after_send:lost:3"
    assert python(sends, **ordered).stdout == "lost 2\n"


def test_every_place_of_the_guard_has_its_failpoint() -> None:
    folder = Path(stepgrant.__file__).parent
    names = ("_caller.py", "_failpoints.py", "_guard.py", "_run_flows.py")
    text = "".join((folder / name).read_text(encoding="utf-8") for name in names)

    assert {name for name in _failpoints.NAMES if f'hit("{name}")' in text} == _failpoints.NAMES
