"""The fast paths of canonical JSON against the exact ones, which define what is accepted and what is written."""

import datetime as dt
import enum
import json
import uuid
from collections import OrderedDict
from collections.abc import Callable, ItemsView
from types import MappingProxyType
from typing import Any, Self, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepgrant import _jcs, canonical
from stepgrant._jcs import MAX_DEPTH, MAX_SAFE_INTEGER


class Word(enum.StrEnum):
    """Text that is an enum member."""

    ONE = "one"
    UMLAUT = "ä"


class Number(enum.IntEnum):
    """A number that is an enum member."""

    ONE = 1
    LARGE = MAX_SAFE_INTEGER + 1


class Shouted(str, enum.Enum):  # noqa: UP042 - a member whose value is another text than the member itself
    """Text whose enum value differs from it."""

    def __new__(cls, value: str) -> Self:
        made = str.__new__(cls, value.upper())
        made._value_ = value
        return made

    ONE = "shout"


class Text(str):
    """A subclass of a scalar."""

    __slots__ = ()


class Object(dict[str, int]):
    """A dict that shows other members than it holds."""

    def items(self) -> ItemsView[str, int]:  # type: ignore[override]
        return {"shown": 1}.items()


odd_text = st.text() | st.sampled_from(
    [*map(chr, range(0x20)), "\x7f", "\u2028", "\ufeff", "\U0001f600", "\ue000", "a/b~c", '"', "\\"]
)
odd_key = odd_text | st.sampled_from([*Word, *Shouted, Text("key"), Text("ü")])
odd_scalar = (
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text
    | st.sampled_from([MAX_SAFE_INTEGER, MAX_SAFE_INTEGER + 1, -MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER - 1, 1.0, -0.0])
    | st.sampled_from([*Word, *Number, *Shouted, Text("text"), Object(held=2), MappingProxyType({"a": 1})])
    | st.sampled_from([b"bytes", frozenset((1,)), uuid.UUID(int=1), dt.date(2026, 1, 1), 1j, object()])
)  # fmt: skip


def several(value: object) -> list[object]:
    """So many arrays and objects that their depth is looked at."""
    return [*([[], {"a": {}}] * (MAX_DEPTH // 2)), value]


odd_values = st.recursive(
    odd_scalar,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(odd_key, inner, max_size=4)
        | st.dictionaries(odd_key, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(odd_key | st.integers() | st.booleans() | st.none(), inner, max_size=2)
    ),
    max_leaves=12,
)


def nested(depth: int, inside: object) -> object:
    """`inside` under that many arrays and objects."""
    for level in range(depth):
        inside = [inside] if level % 2 else {"a": inside}
    return inside


def outcome(work: Callable[[], Any]) -> tuple[str, Any, Any]:
    """What came of it, with the types of what was read: `1` and `1.0` and `True` are three values."""
    try:
        done = work()
    except canonical.CanonicalError as error:
        return "refused", error.code, error.path
    return "done", done, repr(done)


def written_exactly(value: object) -> bytes:
    out: list[str] = []
    _jcs._emit(value, "", 1, out)
    return "".join(out).encode()


@given(odd_values)
@example(nested(MAX_DEPTH, 1))
@example(nested(MAX_DEPTH - 1, {}))
@example(nested(MAX_DEPTH, {}))
@example(nested(MAX_DEPTH + 1, 1))
@example({chr(code): chr(code) for code in range(0x80)})
@example(several(nested(MAX_DEPTH - 1, 1)))
@example(several(nested(MAX_DEPTH - 1, {})))
@example(several(nested(MAX_DEPTH, {})))
def test_the_fast_writer_gives_what_the_exact_one_gives(value: object) -> None:
    assert outcome(lambda: canonical.dumps(cast("canonical.JsonValue", value))) == outcome(
        lambda: written_exactly(value)
    )


@given(odd_values)
def test_so_it_is_in_values_of_many_arrays_and_objects(value: object) -> None:
    assert outcome(lambda: canonical.dumps(cast("canonical.JsonValue", several(value)))) == outcome(
        lambda: written_exactly(several(value))
    )


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": [1, "ä", None, True, (2,)]}, True),
        ({"a": 1.0}, False),
        ({"ä": 1}, False),
        ({"a": MAX_SAFE_INTEGER + 1}, False),
        ({"a": b"bytes"}, False),
        (nested(MAX_DEPTH, {}), False),
        (nested(MAX_DEPTH - 1, {}), True),
        (nested(MAX_DEPTH, 1), True),
        ([[], {}] * MAX_DEPTH, True),
        ([nested(MAX_DEPTH - 2, {})] * 3, True),
        ([nested(MAX_DEPTH - 1, {})] * 3, False),
        ([[]] * MAX_DEPTH + [1.0], False),
        ([[]] * MAX_DEPTH + [{"ä": 1}], False),
        ([Object(held=2)], False),
        ([frozenset((1,))], False),
        ({"a": Word.ONE}, False),
        ({"a": {"b": Text("x")}}, False),
        ([Number.ONE], False),
    ],
)
def test_only_what_is_plain_takes_the_fast_writer(value: object, *, plain: bool) -> None:
    assert _jcs._is_plain(value) is plain


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
spelt_values = values.map(lambda value: json.dumps(value, ensure_ascii=False)) | values.map(json.dumps)
doubled = st.tuples(spelt_values, spelt_values, st.sampled_from(['"a"', '"\\u0061"', '"a":"b","a"', '"a" ', '""'])).map(
    lambda parts: f'{{{parts[2]}:{parts[0]},"a":{parts[1]}}}'
)
fragments = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", '"a"', '"b"', ":", ",", " ", "\t", "\x0c", "1", "-0", "-", "0", "1.0", "1e2", "1E400",
         "01", "9007199254740991", "9007199254740992", "18446744073709551616", "true", "null", "NaN", '"',
         "\\", "\\u0022", "\x00", "\x7f", "ä", "\ufeff", '"\\ud800"', "."]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@given(spelt_values | doubled | fragments | st.text())
@example('{"a":1,"a":2}')
@example('{"a":{"b":1},"a":{"b":1}}')
@example('{"a":-0,"a":1}')
@example('{"a":"\x7f","a":1 }')
@example('{"a":"\\u0022\\u0022","a":1}')
@example("[" * 8 + "]" * 8)
@example("[" * 9 + "]" * 9)
@example("[" * 65 + "]" * 65)
@example("[" * 5000)
def test_the_fast_reader_gives_what_the_exact_one_gives(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")

    assert outcome(lambda: canonical.loads(raw)) == outcome(lambda: canonical._exact(raw, MAX_DEPTH))


@pytest.mark.parametrize(
    ("raw", "easy"),
    [
        (b' {"a": [1, "x", true, null], "b": {}}', True),
        (b'{"a":1,"a":1}', False),
        (b'{"a":1.0}', False),
        (b'{"a":9007199254740992}', False),
        (b'{"a":"\\u0061"}', False),
        ('{"a":"ä"}'.encode(), False),
        (b"[[[[[[[[[]]]]]]]]]", False),
    ],
)
def test_only_easy_texts_take_the_fast_reader(raw: bytes, *, easy: bool) -> None:
    assert (canonical._plain(raw) is not canonical._DOUBT) is easy


def test_the_fast_reader_keeps_a_depth_that_is_lower_than_its_own() -> None:
    with pytest.raises(canonical.CanonicalError, match="too_deep"):
        canonical.loads(b"[[[]]]", max_depth=2)
