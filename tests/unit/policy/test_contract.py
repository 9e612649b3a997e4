"""The contract: what is an allow, what is a denial, and that everything else is `PolicyUnavailable`."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepgrant_broker.domain.decisions import (
    MICRO,
    Allow,
    ApprovalSpec,
    Deny,
    Effect,
    GrantSpec,
    RedeemMode,
    RequireApproval,
)
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import MAX_BYTES, parse

SCHEMA = Path(__file__).parents[3] / "policies" / "stepgrant_policies" / "schemas" / "decision.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_bytes()))


def allow(**more: object) -> dict[str, Any]:
    return {"effect": "allow", "reasons": ["ok"], **more}


def ask(**more: object) -> dict[str, Any]:
    return {"effect": "require_approval", "reasons": ["ask"], **more}


def raw(answer: object) -> bytes:
    return json.dumps(answer).encode()


GOOD: dict[str, dict[str, Any]] = {
    "allow": allow(),
    "allow_whole": allow(
        grant={
            "issuer": "orders-db", "effect": "idempotent", "ttl": 300, "redeem": "optional",
            "audience": "https://tool.example", "params": {"role": "reader", "deep": [{"a": None}]},
            "digest_only": True, "duplicate": "replay",
        },
        labels=["pii:customer", "plain"],
        meters={"refund_usd": 100},
    ),
    "allow_empty_parts": allow(grant={}, labels=[], meters={}),
    "ttl_as_float": allow(grant={"ttl": 60.0}),
    "many_reasons": allow(reasons=[f"code_{number}" for number in range(32)]),
    "ask": ask(),
    "ask_whole": ask(
        grant={"ttl": 1},
        approval={"groups": ["finance"], "quorum": 2, "answer_within": 2592000, "valid_for": 86400},
    ),
    "deny": {"effect": "deny", "reasons": ["no_rule_matched"]},
    "deny_with_known_members": {"effect": "deny", "reasons": ["no"], "grant": "x", "labels": 3, "approval": None},
}  # fmt: skip
BAD: dict[str, Any] = {
    "text": "allow",
    "true": True,
    "null": None,
    "list": [],
    "empty": {},
    "only_allow": {"allow": True},
    "allow_as_text": {"allow": "true"},
    "allow_beside": allow(allow=True),
    "no_effect": {"reasons": ["ok"]},
    "effect_true": {"effect": True, "reasons": ["ok"]},
    "effect_list": {"effect": ["allow"], "reasons": ["ok"]},
    "effect_upper": {"effect": "Allow", "reasons": ["ok"]},
    "effect_space": {"effect": "allow ", "reasons": ["ok"]},
    "no_reasons": {"effect": "allow"},
    "reasons_empty": allow(reasons=[]),
    "reasons_empty_deny": {"effect": "deny", "reasons": []},
    "reasons_empty_ask": ask(reasons=[]),
    "reasons_text": allow(reasons="ok"),
    "reasons_object": allow(reasons={"ok": True}),
    "reason_number": allow(reasons=[1]),
    "reason_words": allow(reasons=["All fine"]),
    "reason_colon": allow(reasons=["approved:apr_1"]),
    "reason_dash": allow(reasons=["a-b"]),
    "reason_underscores": allow(reasons=["_a"]),
    "reason_long": allow(reasons=["a" * 65]),
    "reason_twice": allow(reasons=["ok", "ok"]),
    "reasons_many": allow(reasons=[f"code_{number}" for number in range(33)]),
    "approval_on_allow": allow(approval={}),
    "unknown_member": allow(obligations=[]),
    "unknown_member_deny": {"effect": "deny", "reasons": ["no"], "because": "x"},
    "grant_null": allow(grant=None),
    "grant_list": allow(grant=[]),
    "grant_unknown": allow(grant={"tll": 60}),
    "issuer_number": allow(grant={"issuer": 1}),
    "issuer_empty": allow(grant={"issuer": ""}),
    "issuer_null": allow(grant={"issuer": None}),
    "issuer_space": allow(grant={"issuer": "a b"}),
    "grant_effect_unknown": allow(grant={"effect": "write"}),
    "grant_effect_true": allow(grant={"effect": True}),
    "ttl_zero": allow(grant={"ttl": 0}),
    "ttl_negative": allow(grant={"ttl": -1}),
    "ttl_over": allow(grant={"ttl": 301}),
    "ttl_half": allow(grant={"ttl": 0.5}),
    "ttl_fraction": allow(grant={"ttl": 60.5}),
    "ttl_text": allow(grant={"ttl": "60"}),
    "ttl_true": allow(grant={"ttl": True}),
    "ttl_null": allow(grant={"ttl": None}),
    "redeem_unknown": allow(grant={"redeem": "never"}),
    "redeem_false": allow(grant={"redeem": False}),
    "audience_empty": allow(grant={"audience": ""}),
    "audience_space": allow(grant={"audience": "https://a b"}),
    "audience_list": allow(grant={"audience": ["https://a"]}),
    "audience_long": allow(grant={"audience": "a" * 513}),
    "params_list": allow(grant={"params": []}),
    "params_many": allow(grant={"params": {f"p{number}": 1 for number in range(33)}}),
    "params_name": allow(grant={"params": {"": 1}}),
    **{f"digest_only_{word}": allow(grant={"digest_only": word}) for word in ("false", None)},
    **{f"duplicate_{word}": allow(grant={"duplicate": word}) for word in ("skip", True, None)},
    "labels_text": allow(labels="pii:customer"),
    "label_upper": allow(labels=["PII"]),
    "label_empty": allow(labels=[""]),
    "label_number": allow(labels=[1]),
    "label_twice": allow(labels=["a:b", "a:b"]),
    "labels_many": allow(labels=[f"l:{number}" for number in range(33)]),
    "meters_list": allow(meters=[]),
    "meter_name": allow(meters={"USD": 1}),
    "meter_negative": allow(meters={"usd": -0.01}),
    "meter_text": allow(meters={"usd": "1"}),
    "meter_true": allow(meters={"usd": True}),
    "meter_null": allow(meters={"usd": None}),
    "meter_over": allow(meters={"usd": 1_000_000_001}),
    "meters_many": allow(meters={f"m{number}": 1 for number in range(17)}),
    "approval_null": ask(approval=None),
    "approval_unknown": ask(approval={"group": ["finance"]}),
    "groups_text": ask(approval={"groups": "finance"}),
    "group_empty": ask(approval={"groups": [""]}),
    "groups_twice": ask(approval={"groups": ["a", "a"]}),
    "quorum_zero": ask(approval={"quorum": 0}),
    "quorum_over": ask(approval={"quorum": 11}),
    "quorum_text": ask(approval={"quorum": "2"}),
    "quorum_half": ask(approval={"quorum": 1.5}),
    "answer_within_over": ask(approval={"answer_within": 2592001}),
    "valid_for_over": ask(approval={"valid_for": 86401}),
    "valid_for_zero": ask(approval={"valid_for": 0}),
    "ask_with_bad_grant": ask(grant={"ttl": 0}),
    "ask_with_bad_meter": ask(meters={"usd": -1}),
}
NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"effect": "allow", "reasons": ["ok"]',
    "two": raw(allow()) * 2,
    "nan": b'{"effect": "allow", "reasons": ["ok"], "meters": {"usd": NaN}}',
    "infinity": b'{"effect": "allow", "reasons": ["ok"], "meters": {"usd": 1e999}}',
    "twice": b'{"effect": "deny", "effect": "allow", "reasons": ["ok"]}',
    "not_utf8": b'{"effect": "allow", "reasons": ["\xff"]}',
    "surrogate": b'{"effect": "allow", "reasons": ["ok"], "grant": {"params": {"a": "\\ud800"}}}',
    "bom": b"\xef\xbb\xbf" + raw(allow()),
    "undefined_text": b'"<undefined>"',
    "deep": raw(allow(grant={"params": {"a": json.loads("[" * 20 + "]" * 20)}})),
    "padded": raw(allow()) + b" " * MAX_BYTES,
    "big": raw(allow(grant={"params": {"a": "x" * MAX_BYTES}})),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_within_the_contract_is_read_and_fits_the_schema(name: str) -> None:
    parse(raw(GOOD[name]))
    assert list(VALIDATOR.iter_errors(GOOD[name])) == []


@pytest.mark.parametrize("name", BAD)
def test_what_is_outside_the_contract_is_unavailable_and_breaks_the_schema(name: str) -> None:
    with pytest.raises(PolicyUnavailable, match="outside its contract") as caught:
        parse(raw(BAD[name]))
    assert caught.value.code == "policy_unavailable"
    assert list(VALIDATOR.iter_errors(BAD[name])) != []


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_strict_json_is_unavailable(name: str) -> None:
    with pytest.raises(PolicyUnavailable):
        parse(NOT_JSON[name])


def test_a_line_break_at_the_end_does_not_pass_a_pattern() -> None:  # as it does with `$`, in jsonschema too
    for answer in (allow(reasons=["ok\n"]), allow(labels=["a:b\n"]), allow(grant={"issuer": "jwt\n"})):
        with pytest.raises(PolicyUnavailable, match="outside its contract"):
            parse(raw(answer))


def test_undefined_is_a_denial() -> None:
    assert parse(None) == Deny(("policy_undefined",))


def test_what_is_not_mentioned_stays_open_for_the_strict_defaults() -> None:
    assert parse(raw(allow())) == Allow(("ok",), GrantSpec("jwt", None, None, None, None, {}), (), {})


def test_an_allow_keeps_everything_that_was_said() -> None:
    assert parse(raw(GOOD["allow_whole"])) == Allow(
        ("ok",),
        GrantSpec(
            "orders-db", Effect.IDEMPOTENT, 300, RedeemMode.OPTIONAL, "https://tool.example",
            {"role": "reader", "deep": [{"a": None}]}, digest_only=True, duplicate="replay",
        ),
        ("pii:customer", "plain"),
        {"refund_usd": 100 * MICRO},
    )  # fmt: skip


def test_a_question_keeps_its_grant_and_its_people() -> None:
    assert parse(raw(GOOD["ask_whole"])) == RequireApproval(
        ("ask",), ApprovalSpec(("finance",), 2, 2_592_000, 86_400), GrantSpec(ttl_s=1)
    )
    assert parse(raw(ask())) == RequireApproval(("ask",), ApprovalSpec(), GrantSpec())


def test_a_denial_wins_over_whatever_stands_beside_it() -> None:
    assert parse(raw(GOOD["deny_with_known_members"])) == Deny(("no",))


def test_params_at_their_limit() -> None:
    parse(raw(allow(grant={"params": {"a": "x" * 8_183}})))
    with pytest.raises(PolicyUnavailable, match=r"grant\.params must be at most 8192 bytes"):
        parse(raw(allow(grant={"params": {"a": "x" * 8_185}})))


@pytest.mark.parametrize(
    ("spent", "micro"),
    [
        (0, 0), (1, MICRO), (0.1, 100_000), (0.30000000000000004, 300_000), (12.345678, 12_345_678),
        (1e-6, 1), (1e-7, 1), (5e-324, 1), (0.0000014, 1), (0.0000015, 2), (999_999_999.999999, 999_999_999_999_999),
        (1_000_000_000, 1_000_000_000 * MICRO), (0.0, 0), (2.5, 2_500_000),
    ],
)  # fmt: skip
def test_meters_are_whole_millionths_and_never_free(spent: float, micro: int) -> None:
    decision = parse(raw(allow(meters={"usd": spent})))
    assert isinstance(decision, Allow)
    assert decision.meters == {"usd": micro}


def test_an_error_does_not_quote_the_answer() -> None:
    with pytest.raises(PolicyUnavailable) as caught:
        parse(raw(allow(grant={"issuer": "card 4111-1111"})))
    assert "4111" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near_answers = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["allow", "deny", "require_approval", "x"]) | json_values,
        "reasons": st.just(["ok"]) | json_values,
    },
    optional={
        "grant": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("issuer", "effect", "ttl", "redeem", "audience", "params"), json_values)
        )
        | json_values,
        "labels": json_values,
        "meters": st.dictionaries(st.just("usd"), json_values, max_size=1) | json_values,
        "approval": json_values,
    },
)


def closed(answer: bytes) -> Allow | Deny | RequireApproval | None:
    """The decision, or `None` for the one error that may come out."""
    try:
        return parse(answer)
    except PolicyUnavailable:
        return None


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"effect":' * 1000)
@example(b"9" * 10_000)
@example(b'"' + b"\\u0000" * 1000 + b'"')
def test_random_bytes_leak_no_foreign_error_and_are_never_allowed(answer: bytes) -> None:
    assert not isinstance(closed(answer), Allow)


@given(json_values)
def test_random_json_is_never_allowed(value: object) -> None:
    assert not isinstance(closed(raw(value)), Allow)


@given(near_answers)
def test_what_is_read_from_nearly_right_answers_fits_the_schema(value: dict[str, Any]) -> None:
    decision = closed(raw(value))
    if decision is not None:
        assert list(VALIDATOR.iter_errors(value)) == []
        assert decision.reasons
