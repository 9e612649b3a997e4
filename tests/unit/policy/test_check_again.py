"""What a check found is remembered by all that it depends on; nothing else is taken for the same policy."""

import json

from policies import HEAD
from stepgrant_broker.policy import check as checking
from stepgrant_broker.policy.bundle import SETTINGS, Bundle, from_files, starter_files
from stepgrant_broker.policy.check import REMEMBERED, check

WRONG = HEAD + 'decision := {"effect": "allow", "reasons": ["ok"]} if input.action.toool == "x"\n'


def policy(**more: str) -> Bundle:
    return from_files({"stepgrant/main.rego": WRONG, **more})


def test_the_same_bytes_are_checked_once() -> None:
    found = check(policy())
    assert [finding.code for finding in found] == ["unknown_input"]
    assert check(policy()) is found
    assert check(policy(), issuers=("vault",)) is not found


def test_another_rule_setting_or_schema_is_another_policy() -> None:
    sound = starter_files()
    assert check(from_files(sound)) == ()
    settings = json.loads(sound[SETTINGS])
    wrong = dict(sound) | {SETTINGS: json.dumps({**settings, "approvall": {}}).encode()}
    assert [finding.code for finding in check(from_files(wrong))] == ["bad_settings"]
    name = SETTINGS.replace("data.json", "schema.json")
    told = from_files(dict(sound) | {name: b'{"type": "text"}'})
    assert told.digest == from_files(sound).digest  # a schema only checks; but what it finds is its own
    assert [finding.code for finding in check(told)] == ["bad_schema"]


def test_an_issuer_that_is_missing_is_found_after_all() -> None:
    settings = json.loads(starter_files()[SETTINGS])
    settings |= {"agents": {"billing": {"tools": {"pay": {"effect": "once", "issuer": "nobody"}}}}, "flows": {}}
    bundle = from_files(dict(starter_files()) | {SETTINGS: json.dumps(settings).encode()})
    assert check(bundle) == check(bundle, issuers=("nobody", "jwt")) == ()
    assert check(bundle, issuers=("jwt",)) != ()
    assert check(bundle, issuers=("nobody", "jwt")) == ()


def test_only_the_last_policies_are_remembered() -> None:
    first = check(policy())
    for number in range(REMEMBERED):
        check(policy(**{"stepgrant/more.rego": f"package stepgrant\n\nmore := {number}\n"}))
    assert len(checking._known) == REMEMBERED
    assert check(policy()) == first
    assert check(policy()) is not first
