"""Writing RFC 8785 bytes. `stepgrant.canonical` is the public face and states the rules.

`dumps` has two paths. `_emit` is the readable one and defines the result. `_is_plain` finds the values for which
msgspec's encoder gives the same bytes, about ten times faster; every doubt goes to `_emit`. That the two agree is a
property test over all values, not a promise of msgspec's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as _quote
from typing import Any, Final, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What JSON can say. At run time an array is a `list` or a `tuple`, an object any `Mapping` with `str` keys."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
_MIN_SAFE_INTEGER: Final = -MAX_SAFE_INTEGER
MAX_DEPTH: Final = 64
"""Nested arrays and objects; `[]` has depth 1."""

ES6_INTEGER_END: Final = 1e21
"""From here on ECMAScript prints floats with an exponent, so they read back as floats."""
_ES6_INTEGER_DIGITS: Final = 21
_ES6_SMALL_ZEROS: Final = 6
"""Below 1e-6 ECMAScript prints an exponent."""
_MAX_LEVEL_WIDTH: Final = 1_000_000
"""Values side by side at one depth. A few shared lists, nested, stand for 2^64 values and would never end."""


class CanonicalError(Exception):
    """A value or text has no canonical form here.

    `code` is one of not_json, duplicate_key, number_out_of_range, lone_surrogate, not_utf8, too_deep, too_large,
    not_json_value, not_base64url. `path` is the JSON Pointer of the place, or None where there is none to name.
    """

    def __init__(self, code: str, detail: str, path: str | None = None) -> None:
        super().__init__(code, detail, path)
        self.code = code
        self.detail = detail
        self.path = path

    def __str__(self) -> str:
        where = "" if self.path is None else f" at {self.path or 'the top'}"
        return f"{self.code}: {self.detail}{where}"


_encode_plain: Final = msgspec.json.Encoder(order="sorted").encode


def dumps(value: JsonValue) -> bytes:
    """The RFC 8785 bytes of `value`. Raises `CanonicalError`."""
    try:
        if type(value) is str or _is_plain(value):
            return _encode_plain(value)
    except (TypeError, UnicodeEncodeError):
        pass  # a key that is no string, a lone surrogate: `_emit` says where
    chunks: list[str] = []
    _emit(value, "", 1, chunks)
    return "".join(chunks).encode("utf-8")


def _is_plain(value: object) -> bool:
    """True if msgspec gives canonical bytes: exact built-in types, no floats, ASCII keys, safe integers, shallow.

    ASCII keys only, because msgspec sorts by code point and RFC 8785 by UTF-16 code unit. No floats, because msgspec
    prints 1.0 where ECMAScript prints 1. No other types, because msgspec also writes bytes, sets, dates and more, which
    are not JSON. Raises TypeError for a key that is no string, which msgspec would turn into one.
    """
    # What is inside is put behind, so one pass sees all depths. Few arrays and objects cannot be nested too deeply.
    found: list[Any] = [value]
    keys: list[Any] = []
    nests = 0
    for item in found:
        kind = type(item)
        if kind is str:
            pass
        elif kind is dict or kind is list or kind is tuple:
            if nests == MAX_DEPTH or len(found) > _MAX_LEVEL_WIDTH:
                return _is_plain_by_level(value)
            nests += 1
            if kind is dict:
                keys += item
                found += item.values()
            else:
                found += item
        elif kind is int:
            if not _MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                return False
        elif kind is not bool and item is not None:
            return False
    return "".join(keys).isascii()


def _is_plain_by_level(value: object) -> bool:
    """As `_is_plain`, for values of many arrays and objects, whose depth has to be looked at."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str or kind is bool or item is None:
                continue
            if kind is dict:
                if not "".join(item).isascii():
                    return False
                below += item.values()
            elif kind is list or kind is tuple:
                below += item
            elif kind is not int or not _MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                return False
        if not below:
            return True
        if len(below) > _MAX_LEVEL_WIDTH:
            return False
        level = below
    return False


def _emit(value: object, path: str, depth: int, out: list[str]) -> None:
    """Append the canonical text of `value`; the readable definition of what `dumps` returns."""
    if value is None:
        out.append("null")
    elif value is True or value is False:
        out.append("true" if value else "false")
    elif isinstance(value, str):
        out.append(_string(value, path))
    elif isinstance(value, int):
        if not _MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise CanonicalError("number_out_of_range", "an integer beyond 2^53-1; send it as a string", path)
        out.append(int.__repr__(value))
    elif isinstance(value, float):
        out.append(_number(value, path))
    elif isinstance(value, (list, tuple)):
        _emit_array(value, path, depth, out)
    elif isinstance(value, Mapping):
        _emit_object(value, path, depth, out)
    else:
        raise CanonicalError("not_json_value", f"a {type(value).__name__} is not JSON", path)


def _emit_array(value: Sequence[object], path: str, depth: int, out: list[str]) -> None:
    _check_room(depth, out, path)
    out.append("[")
    for index, item in enumerate(value):
        if index:
            out.append(",")
        _emit(item, f"{path}/{index}", depth + 1, out)
    out.append("]")


def _emit_object(value: Mapping[object, object], path: str, depth: int, out: list[str]) -> None:
    _check_room(depth, out, path)
    members: list[tuple[bytes, str, object]] = []
    for key, item in value.items():
        if not isinstance(key, str):
            raise CanonicalError("not_json_value", f"an object key is a {type(key).__name__}, not a string", path)
        members.append((key.encode("utf-16-be", "surrogatepass"), key, item))
    members.sort(key=lambda member: member[0])
    out.append("{")
    for index, (_, key, item) in enumerate(members):
        if index:
            out.append(",")
        below = f"{path}/{_pointer_part(key)}"
        out.append(_string(key, below))
        out.append(":")
        _emit(item, below, depth + 1, out)
    out.append("}")


def _check_room(depth: int, out: list[str], path: str) -> None:
    if depth > MAX_DEPTH:
        raise CanonicalError("too_deep", f"nested deeper than {MAX_DEPTH} levels", path)
    if len(out) > 4 * _MAX_LEVEL_WIDTH:
        raise CanonicalError("too_large", "too many values", path)


def _string(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError("lone_surrogate", "text with half of a surrogate pair", path) from None
    return _quote(value)


def _number(value: float, path: str) -> str:
    if not math.isfinite(value):
        raise CanonicalError("number_out_of_range", "NaN and Infinity are not JSON", path)
    if MAX_SAFE_INTEGER < abs(value) < ES6_INTEGER_END:
        raise CanonicalError("number_out_of_range", "an integral number beyond 2^53-1; send it as a string", path)
    return _es6_number(value)


def _es6_number(value: float) -> str:
    """A finite float as ECMAScript's Number::toString prints it (RFC 8785 §3.2.2.3).

    Python and ECMAScript choose the same shortest digits and differ only in where they put point and exponent.
    """
    if value == 0:
        return "0"  # also for -0.0
    mantissa, _, exponent = float.__repr__(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    padded = whole + fraction
    digits = padded.lstrip("0")
    point = len(whole) + int(exponent or "0") - (len(padded) - len(digits))  # value = 0.digits * 10^point
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= _ES6_INTEGER_DIGITS:
        text = digits + "0" * (point - count)
    elif 0 < point <= _ES6_INTEGER_DIGITS:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -_ES6_SMALL_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        fraction = f".{digits[1:]}" if count > 1 else ""
        text = f"{digits[0]}{fraction}e{point - 1:+d}"
    return f"-{text}" if value < 0 else text


def _pointer_part(key: str) -> str:
    shown = key.replace("~", "~0").replace("/", "~1")
    return shown.encode("utf-8", "replace").decode("utf-8")
