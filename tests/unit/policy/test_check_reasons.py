"""Codes that are none, and rules that nobody hears: both compile, and both are found before they decide anything."""

import pytest

from policies import HEAD, changed
from stepgrant_broker.policy.bundle import from_files, read_starter
from stepgrant_broker.policy.check import check

STARTER = read_starter()
CONCERN = "stepgrant/rules/hours/hours.rego"


def found(rule: str) -> list[tuple[str, int, str]]:
    """The findings of one more concern of the starter policy."""
    files = changed(STARTER, {CONCERN: "package stepgrant.rules.hours\n\n" + rule + "\n"})
    return [(one.code, one.line, one.fix) for one in check(files)]


@pytest.mark.parametrize(
    ("rule", "line", "fix"),
    [
        ('deny contains "Too Late" if input.time.hour > 19', 3, 'write "too_late": '),
        ('deny contains "tooLate" if input.time.hour > 19', 3, 'write "too_late": '),
        ('deny contains "approved:apr_1" if input.time.hour > 19', 3, 'write "approved_apr_1": '),
        (f'allow contains "{"x" * 65}" if input.time.hour > 19', 3, f'write "{"x" * 64}": '),
        ("require_approval contains 7 if input.time.hour > 19", 3, "write snake_case text of"),
        ('deny contains code if {\n\tcode := "Late!"\n\tinput.time.hour > 19\n}', 4, 'write "late": '),
        ('deny contains code if {\n\tsome code in {"Late"}\n\tinput.time.hour > 19\n}', 4, 'write "late": '),
        (
            'deny contains code if some code in _codes\n\n_codes := ["Late"] if input.time.hour > 19',
            5,
            'write "late": ',
        ),
        ('deny := {"Late"} if input.time.hour > 19', 3, 'write "late": '),
        ('deny := {code | code := "Late"; input.time.hour > 19}', 3, 'write "late": '),
        ("deny.late if input.time.hour > 19", 3, 'write deny contains "late"'),
        ('deny["late"] if input.time.hour > 19', 3, 'write deny contains "late"'),
    ],
)
def test_a_code_that_is_none_is_found_where_it_is_written(rule: str, line: int, fix: str) -> None:
    (finding,) = found(rule)
    assert finding[:2] == ("bad_reason", line)
    assert finding[2].startswith(fix)


@pytest.mark.parametrize(
    ("rule", "fix"),
    [
        ('deny := "too late"', 'write deny contains "too_late"'),
        ('deny := "x" if input.time.hour > 19', 'write deny contains "x"'),
        ("deny if input.time.hour > 19", 'write deny contains "why_not"'),
        ("default deny := false\n\ndeny if input.time.hour > 19", 'write deny contains "why_not"'),
    ],
)
def test_a_rule_that_is_no_set_of_codes_is_never_heard(rule: str, fix: str) -> None:
    codes = found(rule)
    assert {code for code, _, _ in codes} == {"no_codes"}
    assert {one for _, _, one in codes} == {fix}


@pytest.mark.parametrize(
    "rule",
    [
        'deny contains "too_late" if input.time.hour > 19',
        'deny := {"too_late"} if input.time.hour > 19',
        'deny := {trim_suffix(t, "!") | t := input.tenant; input.time.hour > 19}',
        'deny contains code if {\n\tsome code in input.history.labels\n\tcode == "No Code"\n}',
        'deny contains code if {\n\tsome code in input.history.labels\n\tcount([code | code := "No Code"]) == 1\n}',
        'deny contains code if {\n\tsome name, code in _codes\n\tname == input.tenant\n}\n\n_codes := {"Any": "ok"}',
    ],
)
def test_codes_and_what_is_not_certain_are_no_findings(rule: str) -> None:
    assert found(rule) == []


def test_an_object_that_the_decision_never_names_is_the_authors_own_affair() -> None:
    """It looks like an answer; refusing it would stop a broker whose policy has always worked."""
    rule = 'violations contains {"effect": "warn", "reasons": ["Over soft limit"]} if input.time.hour > 19'
    assert {code for code, _, _ in found(rule)} == {"unused_rule"}


def test_an_answer_that_the_decision_names_is_looked_at() -> None:
    rules = 'decision := _no if input.tenant\n\n_no := {"effect": "warn", "reasons": ["Late"]}\n'
    codes = {one.code for one in check(from_files({"stepgrant/main.rego": HEAD + rules}))}
    assert {"bad_effect", "bad_reason"} <= codes


def test_the_answer_itself_is_looked_at() -> None:
    rule = 'decision := {"effect": "Allow", "reasons": ["Listed", "ok"]} if input.tenant\n'
    assert [(one.code, one.line) for one in check(from_files({"stepgrant/main.rego": HEAD + rule}))] == [
        ("bad_effect", 5),
        ("bad_reason", 5),
    ]
    text = 'decision := {"effect": "deny", "reasons": "listed"} if input.tenant\n'
    (finding,) = check(from_files({"stepgrant/main.rego": HEAD + text}))
    assert (finding.code, finding.message) == (
        "no_codes", "stepgrant.decision is 'listed' and no set of codes, so nobody hears it",
    )  # fmt: skip
