"""The starter policy as we ship it: its own tests, its style, and what its settings may say."""

import json
import re
from pathlib import Path

import pytest

from stepgrant import canonical
from stepgrant_broker.domain.decisions import Allow, Decision, Deny, RequireApproval
from stepgrant_broker.policy.bundle import Bundle, read_demo, read_directory, read_starter
from stepgrant_broker.policy.check import check, compiled
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.metadata import read_annotations
from stepgrant_broker.policy.probes import sample
from stepgrant_broker.policy.rego import Rego
from stepgrant_broker.policy.syntax import Const, Rule
from stepgrant_broker.policy.testing import run_tests

ROOT = Path(__file__).parents[2] / "policies" / "stepgrant_policies"
STARTER = read_starter()
MODULES = compiled({**STARTER.modules, **STARTER.tests}, STARTER.data)
RULES = [rule for module in MODULES if module.file in STARTER.modules for rule in module.rules]
SETS = {"deny", "allow", "require_approval"}
REPORT = run_tests(STARTER)


def codes(kind: str) -> dict[str, Rule]:
    found = [rule for rule in RULES if rule.path[:2] == ("stepgrant", "rules") and rule.path[-1] == kind]
    return {str(rule.value.value): rule for rule in found if isinstance(rule.value, Const)}


def decided(bundle: Bundle, **changed: object) -> Decision:
    document = canonical.dumps(sample(**changed))  # type: ignore[arg-type]
    return parse(Rego(bundle.modules, bundle.data).evaluate(document))


@pytest.mark.parametrize("result", REPORT.results, ids=lambda result: result.name)
def test_rego(result: object) -> None:
    assert getattr(result, "passed", False), getattr(result, "message", result)


def test_there_are_as_many_tests_as_their_files_name() -> None:
    named = sum(len(re.findall(r"^test_\w+ if", text, re.MULTILINE)) for text in STARTER.tests.values())
    cases = sum(len(json.loads(text)) for text in STARTER.cases.values())
    assert len(REPORT.results) == named + cases > 80


def test_every_line_of_every_rule_is_reached() -> None:
    assert [rule for rule in REPORT.coverage if rule.missed] == []
    assert REPORT.covered == 1


@pytest.mark.parametrize("code", sorted({**codes("deny"), **codes("require_approval")}))
def test_every_code_that_refuses_or_asks_is_tested_with_and_without_its_input(code: str) -> None:
    rule = {**codes("deny"), **codes("require_approval")}[code]
    text = STARTER.tests[rule.file.replace(".rego", "_test.rego")]
    tests = re.split(r"^test_", text, flags=re.MULTILINE)[1:]
    naming = [test for test in tests if f'"{code}"' in test]
    missing = re.compile(r"^(no|not_knowing)_|lacking|object\.remove")
    assert [test for test in naming if not missing.search(test)], "no test triggers it"
    if code not in {"tool_needs_approval", "amount_needs_approval"}:
        # Those two are asked by the settings; without the settings or the amount the action is denied.
        assert [test for test in naming if missing.search(test)], "no test takes its input away"


def test_every_code_has_one_rule_with_title_description_and_itself_as_metadata() -> None:
    for kind in SETS:
        for code, rule in codes(kind).items():
            about = read_annotations(STARTER.modules[rule.file])[rule.line]
            assert about.title
            assert about.description
            assert about.code == code
    constants = [code for kind in SETS for code in codes(kind)]
    assert len(constants) == len(set(constants)) > 15


def test_every_public_rule_and_package_says_what_it_is() -> None:
    for module in MODULES:
        text = {**STARTER.modules, **STARTER.tests}[module.file]
        notes = read_annotations(text)
        if module.file in STARTER.modules:
            assert notes[module.line].title, module.file
            told: set[str] = set()
            for rule in module.rules:
                if not rule.path[-1].startswith("_") and rule.path[-1] not in told | SETS:
                    assert notes[rule.line].title, (module.file, rule.line)
                    told.add(rule.path[-1])


def test_packages_are_folders_and_tests_stand_beside() -> None:
    for module in MODULES:
        folder = module.file.rpartition("/")[0]
        if module.file in STARTER.modules:
            assert "/".join(module.package) == folder
        else:
            assert module.file.removesuffix("_test.rego").rpartition("/")[2] + "_test" == "/".join(module.package)
    tested = {path.replace("_test.rego", ".rego") for path in STARTER.tests}
    assert set(STARTER.modules) <= tested


def test_style() -> None:
    for path, text in {**STARTER.modules, **STARTER.tests}.items():
        lines = text.splitlines()
        assert len(lines) <= 200, path
        assert max(map(len, lines)) <= 120, path
        assert not re.search(r"^ +|\[_\]|[^:=!<>]=[^=]", re.sub(r'"[^"]*"|`[^`]*`|#.*', "", text), re.MULTILINE), path
    for rule in RULES:
        if rule.path[-1] == "deny" and rule.path[:2] == ("stepgrant", "rules"):
            body = STARTER.modules[rule.file].splitlines()[rule.line - 1 :]
            assert "not " in "\n".join(body[: body.index("")] if "" in body else body), rule


def test_the_folder_is_the_package() -> None:
    assert check(read_directory(ROOT)) == ()


def test_the_first_agent_of_a_new_project() -> None:
    agent = {"name": "my-agent"}
    read = decided(STARTER, agent=agent, action={"tool": "greet", "effect": "read"})
    note = decided(STARTER, agent=agent, action={"tool": "notes.append", "effect": "idempotent"})
    publish = decided(STARTER, agent=agent, action={"tool": "report.publish", "effect": "once"})
    assert isinstance(read, Allow)
    assert isinstance(note, Allow)
    assert isinstance(publish, RequireApproval)
    assert publish.approval.groups == ()
    assert decided(STARTER, agent=agent, action={"tool": "send_invoice", "effect": "once"}) == Deny(
        ("tool_not_listed",)
    )
    billing = decided(STARTER, agent={"name": "billing"}, action={"tool": "send_invoice", "effect": "once"})
    assert isinstance(billing, Allow)


@pytest.mark.parametrize(
    ("tool", "effect", "kind"),
    [
        ("keys.rotate", "once", Allow),
        ("keys.rotate", "idempotent", Deny),
        ("keys.rotate.reconcile", "read", Allow),
        ("keys.rotate.reconcile", "once", Deny),
        ("keys.verify", "read", Allow),
        ("keys.revoke_old", "once", RequireApproval),
        ("keys.revoke_old.reconcile", "read", Allow),
        ("keys.erase", "once", Deny),
        ("stepgrant.run.open", "once", Allow),
        ("stepgrant.run.takeover", "once", Deny),
    ],
)
def test_the_agent_of_the_demo(tool: str, effect: str, kind: type) -> None:
    key = "1~reconcile~1" if tool.endswith(".reconcile") else "1"
    found = decided(read_demo(), agent={"name": "rotator"}, action={"tool": tool, "effect": effect}, step={"key": key})
    assert isinstance(found, kind)


def test_the_demo_rotates_each_of_five_keys_once() -> None:
    rotate = {"tool": "keys.rotate", "effect": "once"}
    for spent, kind in ((0, Allow), (4, Allow), (5, Deny)):
        history = {"meters": {"keys_rotated": spent}}
        assert isinstance(decided(read_demo(), agent={"name": "rotator"}, action=rotate, history=history), kind)


def test_the_demo_may_bind_tools_to_resources() -> None:
    settings = json.loads(json.dumps(dict(read_demo().data["stepgrant_config"])))
    settings["agents"]["rotator"]["tools"]["keys.rotate"]["resources"] = {"mail": "http://127.0.0.1:9001"}
    bundle = read_demo(json.dumps(settings).encode())
    assert check(bundle) == ()
    for tool, effect, key in (("keys.rotate", "once", "1"), ("keys.rotate.reconcile", "read", "1~reconcile~1")):
        action = {"tool": tool, "effect": effect, "resource": "mail"}
        found = decided(bundle, agent={"name": "rotator"}, action=action, step={"key": key})
        assert isinstance(found, Allow)
        assert found.grant.audience == "http://127.0.0.1:9001"
        other = decided(bundle, agent={"name": "rotator"}, action={**action, "resource": "billing"}, step={"key": key})
        assert other == Deny(("resource_not_listed",))


@pytest.mark.parametrize("issuer", ["static", "orders-db", "crm-key", "mesh"])
def test_no_reconcile_hook_is_handed_the_secret_that_its_tool_acts_with(issuer: str) -> None:
    settings = json.loads(json.dumps(dict(STARTER.data["stepgrant_config"])))
    tools = settings["agents"]["billing"]["tools"]
    # The least that one would want to say of such a tool; a look is asked about none of it.
    tools["pay"] = {
        "effect": "once", "ask": True, "issuer": issuer, "params": {"role": "rw"},
        "amount": {"arg": "amount", "max": 10}, "meters": {"refund_usd": {"arg": "amount"}},
    }  # fmt: skip
    billing, once = {"name": "billing"}, {"tool": "pay", "effect": "once", "args": {"amount": 5}}
    look, key = {"tool": "pay.reconcile", "effect": "read"}, {"key": "s1~reconcile~1"}

    bundle = read_starter(json.dumps(settings).encode())
    assert isinstance(decided(bundle, agent=billing, action=once), RequireApproval)
    for asked in (None, "jwt", issuer):
        found = decided(bundle, agent=billing, action=look, step=key, requested={"issuer": asked})
        assert found == Deny(("tool_not_listed",))

    tools["pay.reconcile"] = {"effect": "read", "issuer": issuer, "params": {"role": "ro"}}
    found = decided(read_starter(json.dumps(settings).encode()), agent=billing, action=look, step=key)
    assert isinstance(found, Allow)
    assert (found.grant.issuer, found.grant.params) == (issuer, {"role": "ro"})


def test_misspelt_settings_are_findings_and_not_missing_limits() -> None:
    text = json.dumps(dict(STARTER.data["stepgrant_config"])).replace('"max"', '"maximum"')
    assert {finding.code for finding in check(read_starter(text.encode()))} == {"bad_settings"}
