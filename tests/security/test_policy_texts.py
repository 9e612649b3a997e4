"""Texts that are no policy, or nearly one: findings come out, never another error, never the end of the process."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from policies import ALLOW, HEAD
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.findings import Finding, PolicyInvalid

TOKENS = [
    "decision", "deny", "input", "data", "input.action.tool", "input.history.labels", "x", "y", "f(x)", "f(1)",
    "count(x)", ":=", "=", "==", "!=", "<", "if", "{", "}", "[", "]", "(", ")", "|", "&", "-", "+", ",", ":", ";", "\n",
    "some x in", "some x", "every x in", "every k, x in", "not", "contains", "default", "else", "else :=",
    "with input as",
    "import data.stepgrant", "import rego.v1", "as y", '"text"', "`raw`", "null", "true", "1", "-1.5e3", "# note", "_",
    '"deny"', '"allow"', "package stepgrant", "set()", "in", "{}", "[]",
]  # fmt: skip


def findings(files: dict[str, bytes | str]) -> tuple[Finding, ...]:
    """What is wrong; the only error that may come out of reading is turned into its findings."""
    try:
        return check(from_files(files))
    except PolicyInvalid as invalid:
        return invalid.findings


@given(st.binary(max_size=200))
def test_random_bytes_as_a_policy(raw: bytes) -> None:
    assert findings({"stepgrant/main.rego": raw})


@given(st.text(max_size=200))
def test_random_text_after_a_sound_policy(text: str) -> None:
    for finding in findings({"stepgrant/main.rego": ALLOW + text}):
        assert finding.file
        assert finding.message
        assert "backtrace" not in finding.message


@given(st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join))
@example("f(x) if f(x)")
@example("x contains x if x[x]")
@example("decision if decision")
@example("x := [x | x := x]")
@example("import data.stepgrant as input\nx := input")
@example("some x in x")
@example("every x in x { every y in x { x == y } }")
@example("x[y].z := y if some y in input.history.labels")
@example("x := {y: y | some y in [1]}")
@example('decision := {"effect": "allow", "reasons": ["x"]} if input.tenant else := 3')
def test_random_rego_after_a_sound_policy(text: str) -> None:
    for finding in findings({"stepgrant/main.rego": HEAD + text + "\n"}):
        assert finding.line >= 0
        assert finding.fix


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_random_bytes_as_settings_and_their_schema(data: bytes, schema: bytes) -> None:
    found = findings({"stepgrant/main.rego": ALLOW, "settings/data.json": data, "settings/schema.json": schema})
    assert {finding.code for finding in found} <= {"bad_json", "bad_data", "not_utf8", "bad_settings", "bad_schema"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, json_values)
@example({"a": 1}, {"type": 3, "properties": []})
@example({"a": 1}, {"type": "object", "properties": {"a": 3}})
@example({"a": 1}, {"type": "object", "properties": {"a": {"enum": 3}}})
@example({"a": 1}, {"type": "object", "properties": {"a": {"minimum": "x"}}})
@example({"a": 1}, {"type": "object", "required": 3})
@example({"a": [1]}, {"type": "object", "properties": {"a": {"type": "array", "items": 3}}})
def test_any_json_as_settings_and_their_schema(data: object, schema: object) -> None:

    found = findings(
        {
            "stepgrant/main.rego": ALLOW,
            "settings/data.json": json.dumps(data),
            "settings/schema.json": json.dumps(schema),
        }
    )
    assert {finding.code for finding in found} <= {"bad_data", "bad_settings", "bad_schema"}
