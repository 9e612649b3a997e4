"""`stepgrant policy` on files: what is said of good and of broken policy, for people and for machines."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from commandline import Done, caller
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.commands.cmd_init import scaffold
from stepgrant_broker.policy.probes import sample

Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; no broker is there."""
    return caller(capsys, [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a policy, as the current folder."""
    for name, data in scaffold().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add_rule(folder: Path, text: str, name: str = "extra.rego") -> None:
    (folder / "policy" / "stepgrant" / name).write_text(text, encoding="utf-8")


def test_good_policy(run: Run, folder: Path) -> None:
    assert run("policy", "check").out.startswith("policy can be activated: ")
    value = run("policy", "check", str(folder / "policy"), "--json").json
    assert (value["findings"], value["digest"][:8]) == ([], "sha-256:")


def test_without_a_folder_the_starter_policy_is_meant(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("policy", "check").out.startswith("the starter policy can be activated: ")


def test_findings_stand_where_an_editor_finds_them(run: Run, folder: Path) -> None:
    add_rule(folder, 'package stepgrant.rules.extra\n\ndeny contains "never" if input.acton.tool == "x"\n')
    done = run("policy", "check")
    assert done.code == ExitCode.REFUSED
    assert "policy/stepgrant/extra.rego:3: unknown_input: " in done.out
    assert done.out.endswith("1 finding; this policy cannot be activated\n")
    (finding,) = run("policy", "check", "--json").json["findings"]
    assert (finding["file"], finding["line"], finding["code"]) == ("policy/stepgrant/extra.rego", 3, "unknown_input")


ISSUERS = """
[issuer.orders-db]
kind = "vault-database"
roles = ["orders-rw"]
host = "orders-db.example"
max_ttl_s = 60
"""


def test_issuers_are_looked_up_in_the_brokers_file(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPGRANT_BROKER_ISSUERS_FILE", raising=False)
    settings = folder / "policy" / "stepgrant_config" / "data.json"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace('{"effect": "read"}', '{"effect": "read", "issuer": "orders-bd"}'), "utf-8")
    place = "policy/stepgrant_config/data.json:5: "
    unseen = run("policy", "check")
    assert (unseen.code, f"{place}not looked up: issuer orders-bd; --issuers names" in unseen.out) == (0, True)
    assert len(run("policy", "check", "--json").json["unseen"]) == 1
    file = folder / "issuers.toml"
    file.write_text(ISSUERS, encoding="utf-8")
    for known in (["--issuers", str(file)], []):
        done = run("policy", "check", *known)
        assert (done.code, f"{place}unknown_setting: " in done.out) == (ExitCode.REFUSED, True)
        assert "; write orders-db\n" in done.out
        assert "this policy cannot be activated (where it is in force, it stays so)\n" in done.out
        monkeypatch.setenv("STEPGRANT_BROKER_ISSUERS_FILE", str(file))
    settings.write_text(text.replace('{"effect": "read"}', '{"effect": "read", "issuer": "orders-db"}'), "utf-8")
    assert run("policy", "check", "--json").json["findings"] == []
    file.write_text("[issuer.x]\n", encoding="utf-8")
    assert run("policy", "check").code == ExitCode.USAGE


def test_policy_that_answers_nonsense_is_found_too(run: Run, folder: Path) -> None:
    text = (folder / "policy" / "stepgrant" / "decision.rego").read_text(encoding="utf-8")
    add_rule(
        folder,
        text.replace('{"effect": "deny", "reasons": deny}', '{"effect": "never", "reasons": deny}'),
        "decision.rego",
    )
    done = run("policy", "check")
    assert (done.code, "cannot be activated" in done.out) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize("words", [["check"], ["test"], ["eval", "--input", "-", "--policy"]])
def test_folder_that_is_not_there(run: Run, folder: Path, words: list[str]) -> None:
    done = run("policy", *words, str(folder / "nowhere"))
    assert (done.code, done.out) == (ExitCode.NOT_FOUND, "")


def test_tests_pass_and_fail(run: Run, folder: Path) -> None:
    assert "passed; 100% of the rules" in run("policy", "test").out
    add_rule(folder, 'package extra_test\n\ntest_no if {\n\tprint("seen", 7)\n\t1 == 2\n}\n', "extra_test.rego")
    done = run("policy", "test")
    assert done.code == ExitCode.REFUSED
    assert "policy/stepgrant/extra_test.rego:3: extra_test.test_no FAILED: is undefined" in done.out
    assert "extra_test.rego:4: seen 7\n" in done.out
    assert "1 of " in done.out
    value = run("policy", "test", "--json").json
    assert (value["passed"], [one["name"] for one in value["tests"] if not one["passed"]]) == (
        False,
        ["extra_test.test_no"],
    )


def test_rules_without_a_test_are_listed(run: Run, folder: Path) -> None:
    body = 'deny contains "odd" if {\n\tinput.action.tool == "odd"\n\tinput.action.args.x == 1\n}\n'
    add_rule(folder, f"package stepgrant.rules.extra\n\n{body}")
    done = run("policy", "test", "--coverage", "--verbose")
    assert "policy/stepgrant/extra.rego:3: stepgrant.rules.extra.deny: no test reaches line 3, 5" in done.out
    assert "what is not listed is denied passed" in done.out


def test_policy_without_tests_is_not_tested(run: Run, folder: Path) -> None:
    for path in [*folder.glob("policy/**/*_test.rego"), *folder.glob("policy/cases/*")]:
        path.unlink()
    done = run("policy", "test")
    assert (done.code, "there are no tests" in done.out) == (ExitCode.REFUSED, True)


def test_policy_that_cannot_run_is_not_tested(run: Run, folder: Path) -> None:
    add_rule(folder, "package stepgrant.rules.extra\n\nbroken(")
    done = run("policy", "test")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert "does_not_compile" in done.err


def test_input_is_decided_as_the_broker_would(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.dumps(sample(agent={"name": "my-agent"}, action={"tool": "report.publish", "effect": "once"}))
    (folder / "input.json").write_text(document, encoding="utf-8")
    done = run("policy", "eval", "--input", "input.json").json
    assert (done["effect"], done["reasons"]) == ("require_approval", ["tool_needs_approval"])
    assert done["decision"]["grant"] == {"issuer": "jwt", "effect": "once", "ttl": 10, "redeem": "optional"}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"{}")))
    assert run("policy", "eval", "--input", "-").json["effect"] == "deny"


@pytest.mark.parametrize("text", ["", "{", '{"a":1,"a":2}', "\ufeff{}"])
def test_input_that_is_no_strict_json_is_refused(run: Run, folder: Path, text: str) -> None:
    (folder / "input.json").write_text(text, encoding="utf-8")
    done = run("policy", "eval", "--input", "input.json")
    assert (done.code, "is not strict JSON" in done.err) == (ExitCode.USAGE, True)


@pytest.mark.usefixtures("folder")
def test_eval_needs_one_input(run: Run) -> None:
    assert run("policy", "eval").code == ExitCode.USAGE
    assert run("policy", "eval", "--input", "a", "--run", "b").code == ExitCode.USAGE
    assert run("policy", "eval", "--input", "nowhere.json").code == ExitCode.NOT_FOUND


def test_policy_is_written_into_a_new_folder_only(tmp_path: Path) -> None:
    from stepgrant.cli.exits import CommandError
    from stepgrant_broker.commands.cmd_policy import _write

    (tmp_path / "there").mkdir()
    with pytest.raises(CommandError, match="exists"):
        _write(tmp_path / "there", {"a.rego": "x"})
    for name in ("../out.rego", "/tmp/out.rego", "a/../../out.rego"):  # noqa: S108 - that it is refused
        with pytest.raises(CommandError, match="outside its folder"):
            _write(tmp_path / f"new{len(name)}", {name: "x"})
    assert not (tmp_path / "out.rego").exists()
