"""Running a policy's own tests: what passes, what fails, and what is counted as covered."""

import json

import pytest

from policies import ALLOW, HEAD
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.probes import sample
from stepgrant_broker.policy.testing import PolicyTest, PolicyTestReport, run_tests

TESTS = """package main_test

import data.stepgrant

test_passes if {
	stepgrant.decision.effect == "allow" with input as {"action": {"tool": "probe.read"}}
}

test_is_false := false

test_is_undefined if {
	print("looked at", 7)
	stepgrant.decision.effect == "allow" with input as {}
}

test_fails if {
	to_number("x")
}

test_twice if {
	true
}

test_twice if {
	false
}

helper if true
"""
CASE = {"name": "reads", "input": sample(), "decision": {"effect": "allow", "reasons": ["listed"]}}


def run(tests: str = "", cases: str | None = None, policy: str = ALLOW) -> PolicyTestReport:
    files = {"stepgrant/main.rego": policy}
    if tests:
        files["stepgrant/main_test.rego"] = tests
    if cases is not None:
        files["cases/first.json"] = cases
    return run_tests(from_files(files))


def by_name(report: PolicyTestReport) -> dict[str, PolicyTest]:
    return {result.name.rpartition(".")[2]: result for result in report.results}


def test_each_test_says_how_it_went() -> None:
    report = run(TESTS)
    found = by_name(report)
    assert found["test_passes"] == PolicyTest("main_test.test_passes", "stepgrant/main_test.rego", 5, passed=True)
    assert (found["test_is_false"].passed, found["test_is_false"].message) == (False, "is false")
    assert (found["test_is_undefined"].passed, found["test_is_undefined"].message) == (False, "is undefined")
    assert found["test_is_undefined"].prints == ("stepgrant/main_test.rego:12: looked at 7",)
    assert found["test_passes"].prints == ()
    assert not found["test_fails"].passed
    assert found["test_fails"].message.startswith("stepgrant/main_test.rego:17: could not parse")
    assert found["test_twice"].message == "two tests have this name"
    assert len(report.results) == 6
    assert not report.passed


def test_no_tests_is_not_passed() -> None:
    assert run().results == ()
    assert not run().passed


def test_a_case_compares_the_whole_decision() -> None:
    assert run(cases=json.dumps([CASE])).passed
    several = HEAD + 'decision := {"effect": "allow", "reasons": ["b", "a"]} if input.tenant\n'
    assert run(
        cases=json.dumps([{**CASE, "decision": {"effect": "allow", "reasons": ["a", "b"]}}]), policy=several
    ).passed
    for wrong in ({"effect": "allow", "reasons": ["other"]}, {"effect": "allow"}, None, "allow"):
        (result,) = run(cases=json.dumps([{**CASE, "decision": wrong}])).results
        assert (result.passed, result.message) == (False, 'decided {"effect":"allow","reasons":["listed"]}')


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ("{", "not_json"),
        ("{}", "must hold a list of cases"),
        ("[3]", "a case has exactly"),
        (json.dumps([{**CASE, "more": 1}]), "a case has exactly"),
        (json.dumps([{"name": "x", "input": {}}]), "a case has exactly"),
        (json.dumps([{**CASE, "input": {}}]), "the input does not fit the schema: / lacks tenant"),
        (json.dumps([{**CASE, "input": sample(action={"efect": "read"})}]), "/action/efect is not known here"),
    ],
)
def test_a_case_that_is_none_fails(cases: str, message: str) -> None:
    (result,) = run(cases=cases).results
    assert not result.passed
    assert message in result.message


def test_a_case_whose_decision_breaks_the_contract_fails() -> None:
    policy = HEAD + 'decision := {"effect": "allow", "reasons": []} if input.tenant\n'
    wanted = {**CASE, "decision": {"effect": "allow", "reasons": []}}
    (result,) = run(cases=json.dumps([wanted]), policy=policy).results
    assert "outside its contract" in result.message
    failing = HEAD + 'decision := {"effect": "allow", "reasons": ["x"]} if to_number(input.tenant)\n'
    (result,) = run(cases=json.dumps([CASE]), policy=failing).results
    assert result.message == "stepgrant/main.rego:5: could not parse string as number"


def test_coverage_names_the_lines_that_no_test_reached() -> None:
    policy = (
        ALLOW
        + '\ndecision := {"effect": "deny", "reasons": ["bad"]} if {\n\tinput.action.tool == "bad"\n\tinput.tenant\n}\n'
    )
    report = run(TESTS, policy=policy)
    assert [(rule.line, rule.rule, rule.missed) for rule in report.coverage] == [
        (3, "stepgrant.decision", ()),
        (5, "stepgrant.decision", ()),
        (7, "stepgrant.decision", (7, 9)),
    ]
    assert report.covered == pytest.approx(2 / 3)
    case = {**CASE, "input": sample(action={"tool": "bad"}), "decision": {"effect": "deny", "reasons": ["bad"]}}
    assert run(TESTS, cases=json.dumps([case]), policy=policy).covered == 1


def test_a_policy_or_tests_with_findings_do_not_run() -> None:
    with pytest.raises(PolicyInvalid, match="unknown_input"):
        run(TESTS, policy=ALLOW.replace("action.tool", "action.toool"))
    with pytest.raises(PolicyInvalid, match="recursion"):
        run("package main_test\n\ntest_a if f(1)\n\nf(x) := f(x)\n")
