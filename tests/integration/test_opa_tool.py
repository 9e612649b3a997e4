"""`stepgrant policy check`, `test` and `eval` on a real `opa` program, and the bundle in OPA's own hands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from commandline import Done, caller
from policies import ALLOW, HEAD, call, one
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.commands.cmd_init import scaffold
from stepgrant_broker.policy.bundle import from_files, read_starter
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_broker.policy.opa_tool import OpaTool, ToolAnswer
from stepgrant_broker.policy.testing import run_tests

Run = Callable[..., Done]


@pytest.fixture
def tool(opa_binary: Path) -> OpaTool:
    found = OpaTool.found({"STEPGRANT_OPA": str(opa_binary)})
    assert found is not None
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], opa_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a project with a policy, where OPA is at hand."""
    for name, data in scaffold().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPGRANT_OPA", str(opa_binary))
    return caller(capsys, [])


def test_the_starter_policy_passes_all_its_tests_and_cases_on_opa(tool: OpaTool) -> None:
    on_opa, embedded = run_tests(read_starter(), tool), run_tests(read_starter())
    assert [one for one in on_opa.results if not one.passed] == []
    assert {one.name for one in on_opa.results} == {one.name for one in embedded.results}
    assert (on_opa.engine, on_opa.covered) == (tool.engine, 1.0)
    assert tool.check(read_starter()) == ()


def test_failures_are_told_with_place_reason_and_prints(tool: OpaTool) -> None:
    tests = (
        'package main_test\n\nimport data.stepgrant\n\ntest_no if {\n\tprint("saw", 7)\n\t'
        'stepgrant.decision.effect == "x"\n}\n\ntest_yes if true\n'
    )
    cases = [
        {"name": "wrong", "input": json.loads(call()), "decision": {"effect": "deny", "reasons": ["x"]}},
        {"name": "right", "input": json.loads(call()), "decision": {"effect": "allow", "reasons": ["listed"]}},
        {"name": "no input", "input": {}, "decision": {}},
    ]
    bundle = from_files({**one(ALLOW).files, "main_test.rego": tests, "cases/a.json": json.dumps(cases)})
    report = run_tests(bundle, tool)
    told = {one.name: (one.passed, one.message) for one in report.results}
    assert told["main_test.test_yes"] == (True, "")
    assert told["main_test.test_no"] == (False, "is undefined or false")
    assert told["right"] == (True, "")
    assert told["wrong"] == (False, 'decided {"effect":"allow","reasons":["listed"]}')
    assert told["no input"][1].startswith("the input does not fit the schema")
    (failed,) = [one for one in report.results if one.name == "main_test.test_no"]
    assert (failed.file, failed.line) == ("main_test.rego", 5)
    assert any("saw 7" in line for line in failed.prints)


def test_a_test_that_opa_cannot_compile_is_a_finding(tool: OpaTool) -> None:
    tests = 'package main_test\n\ntest_a if {\n\tx := "a"\n\tx == 1\n}\n'
    with pytest.raises(PolicyInvalid, match=r"main_test\.rego:5: opa_check: OPA: match error"):
        run_tests(from_files({**one(ALLOW).files, "main_test.rego": tests}), tool)


def test_a_name_that_is_defined_twice_fails_here_too(tool: OpaTool) -> None:
    tests = "package main_test\n\ntest_a if true\n\ntest_a if false\n"
    report = run_tests(from_files({**one(ALLOW).files, "main_test.rego": tests}), tool)
    assert not report.passed
    assert "two tests have this name" in {one.message for one in report.results}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + 'decision := {"effect": "allow", "reasons": ["x"]} if http.send({})\n', "undefined function http.send"),
        (HEAD + 'decision := {"effect": "allow", "reasons": ["x"]} if time.now_ns() > 0\n', "undefined function"),
        (HEAD + "decision := 1 if {\n\tunused := 2\n\tinput.tenant\n}\n", "assigned var unused unused"),
        (HEAD + 'decision := {"effect": "allow", "reasons": ["x"]} if print("a")\n', "undefined function"),
    ],
)
def test_what_opa_refuses_is_a_finding(tool: OpaTool, text: str, said: str) -> None:
    (finding,) = tool.check(one(text))
    assert (finding.file, finding.code) == ("stepgrant/main.rego", "opa_check")
    assert said in finding.message
    assert finding.line >= 5


def test_answers_to_the_samples_are_judged(tool: OpaTool) -> None:
    found = tool.check(one(HEAD + 'decision := {"effect": "allow", "reasons": ["x"]} if true\n'))
    assert "allows_nothing" in {finding.code for finding in found}


def test_undefined_and_errors_are_told_apart(tool: OpaTool) -> None:
    assert tool.decide(one("package stepgrant\n\ndecision := 1 if input.no\n"), [b"{}"]) == [ToolAnswer()]
    (answer,) = tool.decide(one(ALLOW), [b"{"])
    assert answer.error


def test_the_commands_say_who_answered(run: Run, tool: OpaTool) -> None:
    assert f"and {tool.engine}\n" in run("policy", "check").out
    assert f"; answered by {tool.engine}\n" in run("policy", "test").out
    assert run("policy", "test", "--json", "--engine", "opa").json["engine"] == tool.engine
    assert run("policy", "test", "--json", "--engine", "embedded").json["engine"].startswith("regorus/")


def test_eval_on_either(run: Run, tmp_path: Path, tool: OpaTool) -> None:
    (tmp_path / "input.json").write_bytes(call("greet"))
    answers = {
        name: run("policy", "eval", "--input", "input.json", "--engine", name).json for name in ("embedded", "opa")
    }
    assert answers["opa"].pop("engine") == tool.engine
    assert answers["embedded"].pop("engine").startswith("regorus/")
    assert answers["opa"] == answers["embedded"]


def test_a_test_that_fails_on_opa_fails_the_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policy/stepgrant/x_test.rego").write_text("package x_test\n\ntest_no if false\n")
    done = run("policy", "test")
    assert done.code == ExitCode.REFUSED
    assert "x_test.test_no FAILED: is undefined or false" in done.out


def test_opa_reads_the_bundle_as_its_own(opa_binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(opa_bundle(read_starter()))
    said = subprocess.run([opa_binary, "inspect", "--format=json", file], capture_output=True, check=True, text=True)
    manifest = json.loads(said.stdout)["manifest"]
    assert manifest["revision"] == read_starter().digest
    assert manifest["roots"] == ["stepgrant", "stepgrant_config"]
