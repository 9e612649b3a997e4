"""Canonical JSON against an independent implementation, and the promise that what is written reads back."""

import base64
import json
from contextlib import suppress

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from stepgrant import canonical
from stepgrant._jcs import ES6_INTEGER_END, MAX_SAFE_INTEGER

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not MAX_SAFE_INTEGER < abs(number) < ES6_INTEGER_END
)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_same_bytes_as_an_independent_implementation(value: canonical.JsonValue) -> None:
    assert canonical.dumps(value) == rfc8785.dumps(value)


@given(values)
def test_what_is_written_reads_back_and_is_stable(value: canonical.JsonValue) -> None:
    written = canonical.dumps(value)

    assert canonical.loads(written) == value
    assert canonical.dumps(canonical.loads(written)) == written


@given(values)
def test_other_spellings_of_a_value_have_its_digest(value: canonical.JsonValue) -> None:
    spelt = json.dumps(value, indent=1, ensure_ascii=True).encode()

    assert canonical.digest(canonical.loads(spelt)) == canonical.digest(value)


@given(st.floats())
def test_every_float_is_printed_like_the_oracle_or_refused(number: float) -> None:
    if abs(number) <= MAX_SAFE_INTEGER or ES6_INTEGER_END <= abs(number) < float("inf"):
        assert canonical.dumps(number) == rfc8785.dumps(number)
    else:
        with pytest.raises(canonical.CanonicalError, match="number_out_of_range"):
            canonical.dumps(number)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()[:-1]))
def test_reading_any_bytes_raises_nothing_foreign(data: bytes) -> None:
    try:
        value = canonical.loads(data)
    except canonical.CanonicalError:
        return
    assert canonical.loads(canonical.dumps(value)) == value


@given(st.text())
def test_base64url_text_is_refused_or_stands_for_itself(text: str) -> None:
    try:
        data = canonical.b64u_decode(text)
    except canonical.CanonicalError:
        return
    assert canonical.b64u(data) == text


near_base64url = st.lists(
    st.sampled_from([*"ABQgwxyz089-_", "+", "/", "=", "==", "\n", " ", "*", "\x00", "é", "\ud800"]), max_size=12
).map("".join)


@given(near_base64url)
@example("QQ==")
@example("QR")
@example("QUJDRA\n")
@example("QU*JD")
@example("QUJD=QUJD")
def test_base64url_is_what_it_would_be_written_as(text: str) -> None:
    """The definition: some bytes are written as this text."""
    data: bytes | None = None
    with suppress(ValueError):
        padded = (text + "=" * (-len(text) % 4)).encode("ascii")
        data = base64.b64decode(padded, altchars=b"-_")
    if data is not None and base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text:
        assert canonical.b64u_decode(text) == data
    else:
        with pytest.raises(canonical.CanonicalError, match="not_base64url"):
            canonical.b64u_decode(text)


@given(st.binary())
def test_base64url_round_trip(data: bytes) -> None:
    assert canonical.b64u_decode(canonical.b64u(data)) == data


@given(st.lists(text, min_size=2, max_size=5, unique=True))
def test_a_duplicate_key_is_found_however_it_is_spelt(keys: list[str]) -> None:
    members = ",".join(f"{json.dumps(key)}:0" for key in [*keys, keys[0]])
    with pytest.raises(canonical.CanonicalError, match="duplicate_key"):
        canonical.loads(f"{{{members}}}".encode())
