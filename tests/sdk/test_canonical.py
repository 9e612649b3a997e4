"""Canonical JSON: the vectors of RFC 8785 and standards' own, and every refusal by its code."""

import copy
import enum
import pickle
import struct
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from stepgrant import canonical
from stepgrant._jcs import _emit, _es6_number, _is_plain
from stepgrant.canonical import CanonicalError

# RFC 8785, appendix B: the bits of an IEEE double, and what ECMAScript prints.
ES6_VECTORS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(("bits", "text"), ES6_VECTORS)
def test_numbers_are_printed_as_ecmascript_does(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))

    assert _es6_number(value) == text


def test_rfc8785_example_of_values() -> None:
    text = (
        rb'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        rb'"string":"\u20ac$\u000F\u000aA'
        rb"'"
        rb'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}'
    )

    assert (
        canonical.dumps(canonical.loads(text))
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_keys_are_sorted_by_utf16_code_unit_not_by_code_point() -> None:
    # RFC 8785 §3.2.3: the emoji is U+1F600 but its first code unit is D83D, before FB33.
    value = {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "ö": 7}

    read_back = canonical.loads(canonical.dumps(value))

    assert isinstance(read_back, dict)
    assert list(read_back) == ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]


def test_known_digest() -> None:
    value: canonical.JsonValue = {"to": "acct-42", "amount": 100}

    assert canonical.dumps(value) == b'{"amount":100,"to":"acct-42"}'
    assert canonical.digest(value) == "sha-256:7giFBwyoyh_33z5TJ1xMrbP790fz4Oo4CgAvjGmrjp0"
    assert canonical.digest_bytes(b'{"amount":100,"to":"acct-42"}') == canonical.digest(value)


def test_action_bytes_and_digest() -> None:
    data = canonical.action_bytes("refund.create", None, {"b": 1.0, "a": []})

    assert data == b'{"action":"refund.create","args":{"a":[],"b":1},"resource":null}'
    assert canonical.action_digest("refund.create", None, {"a": [], "b": 1}) == canonical.digest_bytes(data)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1e-06, "0.000001"),
        (1e-07, "1e-7"),
        (1e21, "1e+21"),
        (2**53 - 1, "9007199254740991"),
        (-(2**53) + 1, "-9007199254740991"),
        ("\x7f\x1f/\u2028", '"\x7f\\u001f/\u2028"'),
        ('\b\t\n\f\r"\\', '"\\b\\t\\n\\f\\r\\"\\\\"'),
        ((1, [2]), "[1,[2]]"),
        ({}, "{}"),
        (MappingProxyType({"b": 1, "a": 2}), '{"a":2,"b":1}'),
        (Colour.RED, '"red"'),
        ({"ä": Colour.RED, Colour.RED: 1}, '{"red":1,"ä":"red"}'),
    ],
)
def test_written_form(value: canonical.JsonValue, text: str) -> None:
    assert canonical.dumps(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "code", "path"),
    [
        ({"a": [1, 2**53]}, "number_out_of_range", "/a/1"),
        ({"a": -(2**53)}, "number_out_of_range", "/a"),
        ({"a": 1e16}, "number_out_of_range", "/a"),
        ({"a": float("nan")}, "number_out_of_range", "/a"),
        ([float("inf")], "number_out_of_range", "/0"),
        ({"a/b~": {"\ud800": 1}}, "lone_surrogate", "/a~1b~0/?"),
        (["ok", "\udc00"], "lone_surrogate", "/1"),
        ({"a": {1: "one"}}, "not_json_value", "/a"),
        ({None: 1}, "not_json_value", ""),
        ([b"bytes"], "not_json_value", "/0"),
        ({"a": {1, 2}}, "not_json_value", "/a"),
        (object(), "not_json_value", ""),
    ],
)
def test_what_has_no_canonical_form_is_refused_and_its_place_named(value: object, code: str, path: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        canonical.dumps(value)  # type: ignore[arg-type]

    assert caught.value.code == code
    assert caught.value.path == path


def test_the_value_is_not_in_the_error() -> None:
    with pytest.raises(CanonicalError) as caught:
        canonical.dumps({"password": b"hunter2"})

    assert str(caught.value) == "not_json_value: a bytes is not JSON at /password"


def nested(depth: int) -> canonical.JsonValue:
    value: canonical.JsonValue = []
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_depth_is_limited_alike_on_both_sides() -> None:
    text = canonical.dumps(nested(64))

    assert canonical.dumps(canonical.loads(text)) == text
    with pytest.raises(CanonicalError, match="too_deep"):
        canonical.dumps(nested(65))
    with pytest.raises(CanonicalError, match="too_deep"):
        canonical.loads(b'{"a":' * 64 + b"[]" + b"}" * 64)
    with pytest.raises(CanonicalError, match="too_deep"):
        canonical.loads(b"[" * 100_000 + b"]" * 100_000)


def test_brackets_inside_strings_are_not_depth() -> None:
    text = b'["' + b"[{" * 100 + b'"]'

    assert canonical.dumps(canonical.loads(text)) == text


def test_a_value_inside_itself_ends_with_an_error() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CanonicalError, match="too_deep"):
        canonical.dumps(loop)  # type: ignore[arg-type]


def test_shared_lists_that_stand_for_endless_values_end_with_an_error() -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(CanonicalError, match="too_large"):
        canonical.dumps(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"[1,]", "not_json"),
        (b"{} {}", "not_json"),
        (b"'a'", "not_json"),
        (b"NaN", "not_json"),
        (b"[Infinity]", "not_json"),
        (b"[-Infinity]", "not_json"),
        (b"01", "not_json"),
        (b'"\n"', "not_json"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),
        ('{"a":1}'.encode("utf-16"), "not_utf8"),
        (b'"\xff"', "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        (b'"\xc0\xaf"', "not_utf8"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"x":{"a":1,"\\u0061":2}}', "duplicate_key"),
        (b"9007199254740992", "number_out_of_range"),
        (b"-9007199254740992", "number_out_of_range"),
        (b"1" * 5000, "number_out_of_range"),
        (b"1e400", "number_out_of_range"),
        (b"-1e400", "number_out_of_range"),
        (b"1e16", "number_out_of_range"),
        (b"9007199254740993.0", "number_out_of_range"),
        (b'"\\ud800"', "lone_surrogate"),
        (b'"\\uDC00x"', "lone_surrogate"),
        (b'{"\\udfff":1}', "lone_surrogate"),
    ],
)
def test_text_that_has_two_readings_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        canonical.loads(data)

    assert caught.value.code == code


def test_a_true_surrogate_pair_is_text() -> None:
    assert canonical.loads(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


def test_size_is_limited_before_anything_is_read() -> None:
    with pytest.raises(CanonicalError, match="too_large"):
        canonical.loads(b"[" + b" " * 100 + b"]", max_bytes=100)
    with pytest.raises(CanonicalError, match="too_large"):
        canonical.loads(memoryview(b"\xff" * 404).cast("I"), max_bytes=400)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_all_kinds_of_bytes_are_read(kind: type) -> None:
    assert canonical.loads(kind(b'{"a": [1, 2.5]}')) == {"a": [1, 2.5]}


def test_the_quick_path_agrees_with_the_defining_one() -> None:
    value: Mapping[str, canonical.JsonValue] = {"b": [1, "é\n\U0001f600", None, True], "a": {"z": (), "y": "", "x": -5}}
    chunks: list[str] = []
    _emit(value, "", 1, chunks)

    assert _is_plain(value)
    assert canonical.dumps(value) == "".join(chunks).encode()


@pytest.mark.parametrize("value", [1.5, {"é": 1}, 2**53, [Colour.RED], MappingProxyType({})])
def test_the_quick_path_leaves_what_it_cannot_do(value: object) -> None:
    assert not _is_plain(value)


@pytest.mark.parametrize(("data", "text"), [(b"", ""), (b"\x00", "AA"), (b"\xfb\xff", "-_8"), (bytes(32), "A" * 43)])
def test_base64url(data: bytes, text: str) -> None:
    assert canonical.b64u(data) == text
    assert canonical.b64u_decode(text) == data


@pytest.mark.parametrize("text", ["AA==", "A", "AB", "A A", "AA\n", "+/8", "é", "A" * 42 + "B"])
def test_base64url_has_one_text_per_bytes(text: str) -> None:
    with pytest.raises(CanonicalError, match="not_base64url"):
        canonical.b64u_decode(text)


def test_errors_survive_pickle_and_copy() -> None:
    error = CanonicalError("not_json_value", "a set is not JSON", "/a")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert (twin.code, twin.detail, twin.path, str(twin)) == (error.code, error.detail, error.path, str(error))
