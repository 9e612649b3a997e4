"""The table of exit codes covers every code that the broker and the SDK can say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stepgrant import _problems, errors
from stepgrant.cli import exits
from stepgrant.cli.exits import CommandError, ExitCode, exit_for, exit_for_code
from stepgrant.errors import BrokerError, BrokerUnavailable, from_problem
from stepgrant_broker import commands


def test_every_code_of_a_problem_has_an_exit_code() -> None:
    assert set(_problems._BUILD) <= set(exits._BY_CODE)


@pytest.mark.parametrize(
    ("code", "status", "wanted"),
    [
        ("invalid_request", 400, ExitCode.USAGE),
        ("digest_mismatch", 400, ExitCode.REFUSED),
        ("invalid_token", 401, ExitCode.AUTH),
        ("forbidden", 403, ExitCode.AUTH),
        ("policy_denied", 403, ExitCode.REFUSED),
        ("unknown_run", 404, ExitCode.NOT_FOUND),
        ("run_ended", 409, ExitCode.CONFLICT),
        ("conflict", 409, ExitCode.CONFLICT),
        ("conflict", 503, ExitCode.UNAVAILABLE),
        ("approval_expired", 410, ExitCode.CONFLICT),
        ("budget_exhausted", 429, ExitCode.UNAVAILABLE),
        ("ledger_unavailable", 503, ExitCode.UNAVAILABLE),
        ("never_heard_of_it", 404, ExitCode.NOT_FOUND),
        ("never_heard_of_it", 418, ExitCode.REFUSED),
    ],
)
def test_exit_codes_of_problems(code: str, status: int, wanted: ExitCode) -> None:
    assert exit_for(from_problem(status, {"code": code})) is wanted


def test_broker_that_cannot_be_reached_is_unavailable() -> None:
    assert exit_for(BrokerUnavailable(detail="ConnectError")) is ExitCode.UNAVAILABLE
    assert exit_for(BrokerError(code="answer_too_large", status=200)) is ExitCode.REFUSED


def test_errors_of_commands_and_receipts() -> None:
    assert exit_for(CommandError("no")) is ExitCode.USAGE
    assert exit_for(CommandError("no", code="no_token")) is ExitCode.AUTH
    assert exit_for(errors.ReceiptError("changed", reason="wrong_hash")) is ExitCode.REFUSED
    assert exit_for(errors.ConfigurationError("no")) is ExitCode.USAGE
    assert exit_for_code("nobody_knows") is ExitCode.REFUSED


def test_every_code_that_a_command_says_has_an_exit_code() -> None:
    roots = [Path(str(exits.__file__)).parent, Path(str(commands.__file__)).parent]
    calls = [
        node
        for root in roots
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    said = [word.value.value for call in calls for word in call.keywords
            if word.arg == "code" and isinstance(word.value, ast.Constant)]  # fmt: skip
    assert len(said) > 50
    assert set(said) <= set(exits._BY_CODE)


def test_documentation_names_every_exit_code() -> None:
    text = Path(str(exits.__file__)).read_text(encoding="utf-8").split('"""')[1]
    documented = {int(number) for number in re.findall(r"^    (\d+) ", text, re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}
