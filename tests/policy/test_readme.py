"""The examples of policies/README.md do what it says, added to a fresh copy of the starter."""

import re
from pathlib import Path

from stepgrant_broker.commands.cmd_init import scaffold
from stepgrant_broker.policy.bundle import from_files, starter_files
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.testing import run_tests

README = (Path(__file__).parents[2] / "policies" / "README.md").read_text(encoding="utf-8")
RULE, TEST = re.findall(r"```rego\n(.*?)```", README, re.DOTALL)
FILES = {
    **starter_files(),
    "stepgrant/rules/hours/hours.rego": RULE,
    "stepgrant/rules/hours/hours_test.rego": TEST,
}


def test_the_rule_and_its_test_join_the_starter_without_touching_it() -> None:
    report = run_tests(from_files(FILES))
    assert [result for result in report.results if not result.passed] == []
    assert "hours_test.test_at_night_nothing_is_sent" in {result.name for result in report.results}


def test_they_join_a_new_project_without_breaking_a_case_of_it() -> None:
    made = {path.removeprefix("policy/"): data for path, data in scaffold().items() if path.startswith("policy/")}
    report = run_tests(from_files({**FILES, **made}))
    assert [result for result in report.results if not result.passed] == []
    assert "publishing asks a person" in {result.name for result in report.results}


def test_without_the_rule_its_test_fails() -> None:
    del (files := dict(FILES))["stepgrant/rules/hours/hours.rego"]
    failed = [result.name for result in run_tests(from_files(files)).results if not result.passed]
    assert failed == ["hours_test.test_at_night_nothing_is_sent"]


def test_the_mistakes_it_warns_of_are_found() -> None:
    for wrong, code in (("deny contains", "unused_rule"), ("input.time", "unknown_input")):
        broken = RULE.replace(wrong, {"deny contains": "denny contains", "input.time": "input.tme"}[wrong])
        found = check(from_files({**FILES, "stepgrant/rules/hours/hours.rego": broken}))
        assert code in {finding.code for finding in found}


def test_the_folders_it_names_are_there() -> None:
    root = Path(__file__).parents[2] / "policies" / "stepgrant_policies"
    for name in (
        "stepgrant_config/data.json",
        "stepgrant/decision.rego",
        "stepgrant/rules",
        "cases",
        "schemas",
        "demo",
    ):
        assert (root / name).exists()
