"""Explanations: which rule said it, in its author's words, and what it looked at."""

import pytest

from policies import HEAD, call, one
from stepgrant import canonical
from stepgrant_broker.domain.decisions import Allow, Deny, RequireApproval
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.bundle import from_files, read_starter
from stepgrant_broker.policy.explain import Explanation, Fact, explain
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.probes import sample


def about(agent: str, tool: str, effect: str = "once", **args: object) -> bytes:
    return canonical.dumps(sample(agent={"name": agent}, action={"tool": tool, "effect": effect, "args": args}))


def starter(policy_input: bytes) -> Explanation:
    return explain(read_starter(), policy_input)


def facts(found: Explanation, code: str) -> dict[str, object]:
    (reason,) = [reason for reason in found.reasons if reason.code == code]
    (rule,) = reason.rules
    return {fact.name: fact.value if fact.defined else "undefined" for fact in rule.facts}


def test_a_denial_is_told_with_its_rule_its_words_and_its_numbers() -> None:
    found = starter(about("billing", "refund.create", amount=1500))
    assert found.decision == Deny(("amount_over_limit",))
    (rule,) = found.reasons[0].rules
    assert (rule.file, rule.rule) == ("stepgrant/rules/amounts/amounts.rego", "stepgrant.rules.amounts.deny")
    assert read_starter().modules[rule.file].splitlines()[rule.line - 1].startswith('deny contains "amount_over_limit"')
    assert rule.title == "The amount is over the limit"
    assert rule.description == "It is more than `amount.max` of the tool."
    looked_at = facts(found, "amount_over_limit")
    assert looked_at["data.stepgrant.rules.amounts._amount"] == 1500
    assert looked_at["data.stepgrant.rules.amounts._within_limit"] == "undefined"
    assert looked_at["data.stepgrant.settings.tool"]["amount"]["max"] == 1000  # type: ignore[index]
    assert looked_at["input.action.tool"] == "refund.create"


def test_an_allow_and_a_question_are_told_too() -> None:
    found = starter(about("my-agent", "greet", "read"))
    assert isinstance(found.decision, Allow)
    assert [(reason.code, reason.rules[0].title) for reason in found.reasons] == [
        ("tool_listed", "The tool is listed for this agent")
    ]
    found = starter(about("billing", "refund.create", amount=250))
    assert isinstance(found.decision, RequireApproval)
    assert facts(found, "amount_needs_approval")["data.stepgrant.rules.amounts._small"] == "undefined"
    assert found.unmet == ()


def test_what_is_missing_from_the_input_is_told_as_missing() -> None:
    found = starter(b"{}")
    assert facts(found, "agent_not_listed")["input.agent.name"] == "undefined"


def test_every_code_of_a_decision_is_told() -> None:
    found = starter(about("billing", "refund.create", amount="80"))
    assert [reason.code for reason in found.reasons] == ["amount_over_limit", "amount_unreadable", "budget_exceeded"]
    assert all(reason.rules for reason in found.reasons)


def test_a_default_tells_which_line_each_allowing_rule_stopped_at() -> None:
    text = HEAD.replace("default", "# METADATA\n# title: Nobody\n# custom:\n#   code: no_rule_matched\ndefault", 1) + (
        'decision := {"effect": "allow", "reasons": allow} if count(allow) > 0\n\n'
        'allow contains "sunday" if {\n\tinput.tenant\n\tinput.time.weekday == "sunday"\n\tinput.agent\n}\n\n'
        'allow contains "known" if {\n\tinput.run.key == "nightly"\n\tinput.agent\n}\n'
    )
    found = explain(one(text), call())
    assert found.decision == Deny(("no_rule_matched",))
    assert found.reasons[0].rules[0].title == "Nobody"
    assert [(unmet.code, unmet.text) for unmet in found.unmet] == [
        ("sunday", 'input.time.weekday == "sunday"'),
        ("known", 'input.run.key == "nightly"'),
    ]


def test_of_two_rules_with_one_code_only_those_that_were_tried_are_told() -> None:
    text = HEAD + (
        'decision := {"effect": "deny", "reasons": deny} if count(deny) > 0\n\n'
        'deny contains "night" if {\n\tinput.time.hour > 20\n}\n\n'
        'deny contains "night" if {\n\tinput.time.hour < 6\n}\n'
    )
    found = explain(one(text), call())
    assert found.reasons[0].rules[0].facts == (Fact("input.time.hour", 22),)


def test_a_computed_code_has_no_rule_but_is_told() -> None:
    text = (
        HEAD + 'decision := {"effect": "deny", "reasons": [concat("_", ["no", input.action.effect])]} if input.tenant\n'
    )
    found = explain(one(text), call())
    assert [(reason.code, reason.rules) for reason in found.reasons] == [("no_read", ())]


def test_the_facts_of_functions_and_helpers_are_found_once() -> None:
    text = HEAD + (
        'decision := {"effect": "deny", "reasons": deny} if count(deny) > 0\n\n'
        'deny contains "over" if not small(input.run.step_count)\n\n'
        "small(n) if {\n\tn < limit\n\tinput.run.step_count >= 0\n}\n\nlimit := 0\n"
    )
    found = explain(one(text), call())
    names = [fact.name for fact in found.reasons[0].rules[0].facts]
    assert names == ["input.run.step_count", "data.stepgrant.limit"]


def test_what_does_not_run_or_breaks_the_contract_is_a_named_error() -> None:
    with pytest.raises(PolicyInvalid, match="does_not_compile"):
        explain(from_files({"stepgrant/main.rego": HEAD + "x if {\n"}), call())
    with pytest.raises(PolicyInvalid, match=r"main\.rego:5: does_not_evaluate"):
        explain(one(HEAD + 'decision := {"effect": "deny", "reasons": ["x"]} if to_number(input.tenant)\n'), call())
    with pytest.raises(PolicyUnavailable, match="outside its contract"):
        explain(one(HEAD + 'decision := {"effect": "allow", "reasons": []} if input.tenant\n'), call())
