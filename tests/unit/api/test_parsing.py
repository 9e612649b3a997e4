"""From bytes to domain values: each refusal by its code and the member it names."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from stepgrant import _wire, canonical
from stepgrant_broker.api import parsing
from stepgrant_broker.api.paging import GrantQuery
from stepgrant_broker.domain.errors import DigestMismatch, InvalidRequest, SchemaViolation, StepgrantFault, TooLarge
from stepgrant_broker.domain.settings import Limits

LIMITS = Limits()


def wired(action: dict[str, Any] | None = None, **more: Any) -> _wire.StepCall:  # noqa: ANN401
    body = {"epoch": 1, "action": {"tool": "pay", "args": {"amount": 1}, **(action or {})}, **more}
    return parsing.convert(body, _wire.StepCall)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not_json"), (b"{", "not_json"), (b"NaN", "not_json"), (b'{"a": 1e999}', "number_out_of_range"),
        (b'{"a": 9007199254740993}', "number_out_of_range"), (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": "\\ud800"}', "lone_surrogate"), (b'{"a": "\xff"}', "not_utf8"), (b"\xef\xbb\xbf{}", "not_json"),
        (b"[" * 70 + b"]" * 70, "too_deep"),
    ],
)  # fmt: skip
def test_a_body_that_can_be_read_in_two_ways_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest, match=code):
        parsing.json_object(raw, 1000)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_a_body_is_an_object(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        parsing.json_object(raw, 1000)


def test_a_body_over_the_limit_is_too_large() -> None:
    assert parsing.json_object(b'{"a":1}', 7) == {"a": 1}
    with pytest.raises(TooLarge):
        parsing.json_object(b'{"a": 1}', 7)


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ({}, _wire.Holding, "epoch"),
        ({"epoch": "1"}, _wire.Holding, "epoch"),
        ({"epoch": True}, _wire.Holding, "epoch"),
        ({"epoch": 1.5}, _wire.Holding, "epoch"),
        ({"epoch": 1, "epcoh": 2}, _wire.Holding, "epcoh"),
        ({"epoch": 1, "action": {"tool": 1}}, _wire.StepCall, "action.tool"),
        ({"epoch": 1, "action": {"tool": "a", "x": 1}}, _wire.StepCall, "action.x"),
        ({"epoch": 1, "action": {}}, _wire.StepCall, "action.tool"),
        ({"epoch": 1, "action": {"tool": "a"}, "effect": "twice"}, _wire.StepCall, "effect"),
        ({"agent": "a", "labels": {"k": 1}}, _wire.OpenRun, "labels[...]"),
    ],
)
def test_a_wrong_shape_names_the_member(body: dict[str, Any], kind: type, field: str) -> None:
    with pytest.raises(SchemaViolation) as refused:
        parsing.convert(body, kind)

    assert refused.value.field == field


def test_a_query_is_closed_and_typed() -> None:
    assert parsing.convert_query(b"live=true&run=run_1&limit=5", GrantQuery) == GrantQuery(5, None, "run_1", live=True)
    for query, field in ((b"live=perhaps", "live"), (b"runs=1", "runs"), (b"limit=", "limit"), (b"\xff", "query")):
        with pytest.raises(InvalidRequest) as refused:
            parsing.convert_query(query, GrantQuery)
        assert refused.value.field == field


@pytest.mark.parametrize("key", ["a", "A-Z.0_9:~x", "x" * 200, "order@7"])
def test_a_key_in_the_path(key: str) -> None:
    assert parsing.segment({"step": key}, "step") == key


@pytest.mark.parametrize("key", ["", "a b", "a/b", "é", "x" * 201, "a\n", "a\x00"])
def test_a_key_outside_the_alphabet_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsing.segment({"step": key}, "step")

    assert refused.value.field == "step"


def test_arguments_give_preimage_and_digest() -> None:
    call = parsing.step_call("s1", wired(), LIMITS)

    assert call.preimage == canonical.action_bytes("pay", None, {"amount": 1})
    assert call.digest == canonical.digest_bytes(call.preimage)
    assert call.args == {"amount": 1}


def test_a_digest_alone_brings_no_arguments() -> None:
    digest = canonical.digest(1)
    body = {"epoch": 1, "action": {"tool": "pay", "args_digest": digest}}
    call = parsing.step_call("s1", parsing.convert(body, _wire.StepCall), LIMITS)

    assert (call.digest, call.preimage, call.args) == (digest, None, None)


def test_arguments_that_are_null_are_arguments() -> None:
    body = {"epoch": 1, "action": {"tool": "pay", "args": None}}
    call = parsing.step_call("s1", parsing.convert(body, _wire.StepCall), LIMITS)

    assert call.preimage == canonical.action_bytes("pay", None, None)


def test_two_that_agree_are_one_and_two_that_differ_are_none() -> None:
    digest = canonical.action_digest("pay", None, {"amount": 1})
    assert parsing.step_call("s1", wired({"args_digest": digest}), LIMITS).digest == digest

    with pytest.raises(DigestMismatch):
        parsing.step_call("s1", wired({"args_digest": canonical.digest(2)}), LIMITS)


@pytest.mark.parametrize(
    ("action", "more", "kind", "field"),
    [
        ({"args": msgspec.UNSET}, {}, InvalidRequest, "action.args"),
        ({"args_digest": "sha-256:short"}, {}, InvalidRequest, "action.args_digest"),
        ({"tool": ""}, {}, InvalidRequest, "action.tool"),
        ({"tool": "a\nb"}, {}, InvalidRequest, "action.tool"),
        ({"resource": "x" * 1001}, {}, InvalidRequest, "action.resource"),
        ({"args": "x" * 300_000}, {}, TooLarge, "action.args"),
        ({}, {"settle_s": -1}, InvalidRequest, "settle_s"),
        ({}, {"settle_s": 1e300}, InvalidRequest, "settle_s"),
        ({}, {"settle_s": math.inf}, InvalidRequest, "settle_s"),
        ({}, {"ttl_s": 0}, InvalidRequest, "ttl_s"),
        ({}, {"idempotency_key": "x" * 201}, InvalidRequest, "idempotency_key"),
        ({}, {"issuer": ""}, InvalidRequest, "issuer"),
        ({}, {"context": {"a": "x" * 70_000}}, TooLarge, "context"),
        ({}, {"params": {"a": "x" * 70_000}}, TooLarge, "params"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_by_member(
    action: dict[str, Any], more: dict[str, Any], kind: type[StepgrantFault], field: str
) -> None:
    body = {"epoch": 1, "action": {"tool": "pay", "args": 1, **action}, **more}
    if body["action"]["args"] is msgspec.UNSET:
        del body["action"]["args"]
    with pytest.raises(kind) as refused:
        parsing.step_call("s1", parsing.convert(body, _wire.StepCall), LIMITS)

    assert refused.value.field == field


def test_what_a_key_stands_for_leaves_out_only_not_received() -> None:
    assert parsing.body_bytes({"b": 1, "a": 2, "not_received": True}) == b'{"a":2,"b":1}'
    assert parsing.body_bytes({"b": {"not_received": True}}) == b'{"b":{"not_received":true}}'


def test_a_withheld_result_is_not_sent() -> None:
    assert parsing.result(msgspec.UNSET, withheld=True).withheld
    assert parsing.result(None).body == b"null"
    with pytest.raises(InvalidRequest):
        parsing.result("secret", withheld=True)


def test_a_run_without_a_key_is_named_after_its_request() -> None:
    def named(jkt: str, key: str) -> str:
        body = parsing.convert({"agent": "a"}, _wire.OpenRun)
        return parsing.open_call(body, jkt=jkt, idempotency_key=key, limits=LIMITS).run_key

    assert named("j", "k") == named("j", "k")
    assert len({named("j", "k"), named("j", "l"), named("i", "k")}) == 3


def test_no_input_null_and_a_value_are_three_things() -> None:
    def given(**body: object) -> bytes | None:
        wanted = parsing.convert({"agent": "a", **body}, _wire.OpenRun)
        return parsing.open_call(wanted, jkt="j", idempotency_key="k", limits=LIMITS).input_bytes

    assert (given(), given(input=None), given(input={"b": 1})) == (None, b"null", b'{"b":1}')
    with pytest.raises(TooLarge):
        given(input="x" * 300_000)
