"""The part of JSON Schema that checks policies and settings: compared with a full validator where both speak."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stepgrant_broker.policy.bundle import demo_settings, read_starter
from stepgrant_broker.policy.probes import SAMPLE, samples
from stepgrant_broker.policy.schema import NoMember, describes, element, input_schema, problems, step

SETTINGS_SCHEMA = read_starter().schemas["stepgrant_config/data.json"]
SETTINGS = read_starter().data["stepgrant_config"]
ROOT = Path(__file__).parents[3]


def lead(*keys: object) -> Any:  # noqa: ANN401  (a schema)
    at = input_schema()
    for key in keys:
        at = step(at, key)
    return at


def places(schema: Any, value: object) -> list[str]:  # noqa: ANN401  (a schema)
    return ["/".join(path) for path, _ in problems(schema, value)]


def test_our_schemas_are_schemas() -> None:
    folder = ROOT / "policies" / "stepgrant_policies"
    for path in (folder / "schemas").iterdir():
        Draft202012Validator.check_schema(json.loads(path.read_bytes()))
    Draft202012Validator.check_schema(SETTINGS_SCHEMA)


def test_samples_and_settings_fit_for_both_validators() -> None:
    for name, document in samples().items():
        if name != "empty":
            assert places(input_schema(), document) == []
            Draft202012Validator(input_schema()).validate(document)
    for settings in (SETTINGS, json.loads(demo_settings())):
        assert places(SETTINGS_SCHEMA, settings) == []
        Draft202012Validator(SETTINGS_SCHEMA).validate(settings)


@pytest.mark.parametrize("member", sorted(SAMPLE))
def test_every_member_of_the_input_is_needed_and_closed(member: str) -> None:
    lacking = {name: value for name, value in SAMPLE.items() if name != member}
    more = {**SAMPLE, member + "x": 1}
    for document in (lacking, more):
        assert places(input_schema(), document)
        assert not Draft202012Validator(input_schema()).is_valid(document)


def test_paths_lead_where_the_schema_says() -> None:
    assert lead("action", "args", "anything", "at", 3, "all") == {}
    assert lead("history", "labels", 0)["type"] == "string"
    assert lead("history", "meters", "usd")["type"] == "number"
    assert lead("claimed", "labels", None)["type"] == "string"
    assert element(lead("history", "tools"))["type"] == "string"
    for path in (("actoin",), ("action", "toool"), ("history", "labels", "pii"), ("tenant", "x"), ("run", 1)):
        with pytest.raises(NoMember):
            lead(*path)


def test_data_that_a_schema_describes_is_known() -> None:
    schemas = {"a/b/data.json": {"type": "object", "additionalProperties": False, "properties": {"max": {}}}}
    assert describes(schemas, ("a", "b", "max", "deeper"))
    assert describes(schemas, ("a", "b", None))
    assert not describes(schemas, ("a", "b", "min"))
    assert not describes(schemas, ("a",))
    assert not describes(schemas, ("x", "b", "max"))


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"ammount": 1}, "agents/billing/tools/send_invoice/ammount"),
        ({"ttl": 301}, "agents/billing/tools/send_invoice/ttl"),
        ({"ttl": 0}, "agents/billing/tools/send_invoice/ttl"),
        ({"ttl": "60"}, "agents/billing/tools/send_invoice/ttl"),
        ({"effect": "write"}, "agents/billing/tools/send_invoice/effect"),
        ({"effect": None}, "agents/billing/tools/send_invoice/effect"),
        ({"ask": 1}, "agents/billing/tools/send_invoice/ask"),
        ({"amount": {"arg": "amount"}}, "agents/billing/tools/send_invoice/amount"),
        ({"labels": ["a", 1]}, "agents/billing/tools/send_invoice/labels/1"),
        ({"amount": {"arg": "a", "max": True}}, "agents/billing/tools/send_invoice/amount/max"),
        ({"approval": {"quorum": 1.5}}, "agents/billing/tools/send_invoice/approval/quorum"),
    ],
)
def test_misspelt_or_wrong_settings_are_found(value: dict[str, Any], where: str) -> None:
    settings = json.loads(json.dumps(SETTINGS))
    settings["agents"]["billing"]["tools"]["send_invoice"].update(value)
    assert places(SETTINGS_SCHEMA, settings) == [where]
    assert not Draft202012Validator(SETTINGS_SCHEMA).is_valid(settings)
