"""What settings must name twice, and in which line it is missing: read as if it held, it would hold nothing."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from policies import ALLOW
from stepgrant_broker.policy.bundle import SETTINGS, Bundle, from_files, read_starter, starter_files
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.check_settings import issuers_named
from stepgrant_broker.policy.json_lines import lines_of

STARTER = starter_files()[SETTINGS].decode()
BUILT_IN = frozenset({"jwt", "static"})


def starter(*changes: tuple[str, str]) -> Bundle:
    """The starter policy, with texts of its settings replaced."""
    text = STARTER
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return read_starter(text.encode())


def line(text: str) -> int:
    """The line of the starter's settings with this text."""
    return STARTER[: STARTER.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message", "fix"),
    [
        ('"pii:customer": {"blocks"', '"pii:custmer": {"blocks"',
         "/flows/pii:custmer: pii:custmer is not among /agents/*/tools/*/labels", "write pii:customer"),
        ('["mail.send"]', '["mail.sned"]',
         "/flows/pii:customer/blocks/0: mail.sned is not among /agents/*/tools", "write mail.send"),
        ('["mail.send"]', '["fax"]', "/flows/pii:customer/blocks/0: fax is not among /agents/*/tools",
         "known: customer.read, greet, mail.send, notes.append, refund.create, report.publish, send_invoice"),
    ],
)  # fmt: skip
def test_a_name_that_nothing_else_names_is_found_with_the_nearest(old: str, new: str, message: str, fix: str) -> None:
    (finding,) = check(starter((old, new)))
    assert (finding.file, finding.line, finding.code) == (SETTINGS, line(old), "unknown_setting")
    assert finding.message == f"{message}, so this does not do what it says"
    assert finding.fix == fix


def test_a_meter_needs_a_budget_of_its_own_agent_and_a_budget_a_meter() -> None:
    found = check(starter(('"budgets": {"refund_usd": 2000}', '"budgets": {"refund_us": 2000}')))
    budget, meter = found
    assert (budget.line, budget.fix) == (line('"budgets"'), "write refund_usd")
    assert (meter.line, meter.fix) == (line('"meters"'), "write refund_us")
    assert "is not among /agents/billing/budgets, so" in meter.message
    # The budget of another agent is none.
    elsewhere = starter(
        ('"budgets": {"refund_usd": 2000},', ""), ('"my-agent": {', '"my-agent": {"budgets": {"refund_usd": 1},')
    )
    assert [(one.line, one.code) for one in check(elsewhere)] == [
        (line('"my-agent"'), "unknown_setting"),
        (line('"meters"'), "unknown_setting"),
    ]


def test_a_question_above_the_limit_is_never_asked() -> None:
    (finding,) = check(starter(('"ask_above": 100', '"ask_above": 1000.5')))
    assert (finding.file, finding.line, finding.code) == (SETTINGS, line('"ask_above"'), "bad_settings")
    assert finding.message.endswith("/amount/ask_above is 1000.5, more than max (1000), so it is never reached")
    assert check(starter(('"ask_above": 100', '"ask_above": 1000'))) == ()


@pytest.mark.parametrize(("meter", "wanted"), [("{}", "at least 1"), ('{"arg": "a", "each": 1}', "at most 1")])
def test_a_meter_reads_one_thing(meter: str, wanted: str) -> None:
    (finding,) = check(starter(('{"arg": "amount"}}', meter + "}")))
    assert (finding.line, finding.code) == (line('"meters"'), "bad_settings")
    assert finding.message.endswith(f"/meters/refund_usd must have {wanted} of: arg, each")


def test_an_issuer_is_looked_up_where_the_brokers_are_known() -> None:
    bundle = starter(('"mail.send": {"effect": "once"}', '"mail.send": {"effect": "once", "issuer": "mail-smpt"}'))
    assert check(bundle) == ()
    (finding,) = check(bundle, BUILT_IN | {"mail-smtp"})
    assert (finding.line, finding.code, finding.fix) == (line('"mail.send": {'), "unknown_setting", "write mail-smtp")
    assert "is not among the issuers of the broker" in finding.message
    assert check(bundle, BUILT_IN | {"mail-smpt"}) == ()
    assert [(named.name, at) for named, at in issuers_named(bundle)] == [("mail-smpt", line('"mail.send": {'))]


def test_what_a_rule_names_as_a_text_is_known() -> None:
    bundle = starter(('"pii:customer": {"blocks"', '"after:hours": {"blocks"'))
    assert [one.code for one in check(bundle)] == ["unknown_setting"]
    rule = 'package stepgrant.rules.hours\n\ndeny contains "late" if "after:hours" in input.history.labels\n'
    files = {**bundle.files, "stepgrant/rules/hours/hours.rego": rule}
    schema = starter_files()["stepgrant_config/schema.json"].decode()
    assert check(from_files({**files, "stepgrant_config/schema.json": schema})) == ()


SCHEMAS: Mapping[str, Any] = {
    "x-among is no list": {"x-among": "agents"},
    "x-among of numbers": {"x-among": [1]},
    "x-at-most is no name": {"properties": {"a": {"x-at-most": 3}}},
    "propertyNames is no schema": {"propertyNames": ["a"]},
    "minProperties is no number": {"minProperties": "1"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_our_words_in_a_schema_must_be_sound(name: str) -> None:
    files = {"stepgrant/main.rego": ALLOW, "s/data.json": '{"max": 1}', "s/schema.json": json.dumps(SCHEMAS[name])}
    assert [(one.file, one.code) for one in check(from_files(files))] == [("s/schema.json", "bad_schema")]


def test_every_member_and_element_has_its_line() -> None:
    text = '{\n "a": {"b": [1,\n  {"c": "x,}"},\n  [true]]},\n "d\\u0061": {},\n "e": [],\n "a\\"": null}'
    assert lines_of(text) == {
        (): 1, ("a",): 2, ("a", "b"): 2, ("a", "b", "0"): 2, ("a", "b", "1"): 3, ("a", "b", "1", "c"): 3,
        ("a", "b", "2"): 4, ("a", "b", "2", "0"): 4, ("da",): 5, ("e",): 6, ('a"',): 7,
    }  # fmt: skip
    # The first of two like names does not take the place of the second.
    twice = '{\n"x": {"max": 1},\n"y": {\n"max": 2}}'
    assert lines_of(twice)[("y", "max")] == 4
