"""Canonical JSON (RFC 8785), strict reading, and the digests that everything else hangs on.

Rules of this module:

* Standard library and msgspec only: the broker's domain imports it. msgspec never decides what is accepted or how it is
  written: where it is used, the exact code beside it gives the same, and every doubt goes there.
* Two programs that agree on a value agree on its bytes. So whatever has two readings is refused with a named error,
  never repaired: duplicate keys, NaN and Infinity, lone surrogates, integers beyond 2^53-1, bad UTF-8, a BOM.
* What `dumps` accepts, `loads` reads back as an equal value. That is why a float which RFC 8785 would print as an
  integer beyond 2^53-1 (for example 1e16) is refused too, although RFC 8785 alone would print it.
* Errors never show a value, only its place (RFC 6901 JSON Pointer) and a stable code.
"""

from __future__ import annotations

import hashlib
import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, NoReturn

import msgspec

from stepgrant._jcs import ES6_INTEGER_END, MAX_DEPTH, MAX_SAFE_INTEGER, CanonicalError, JsonValue, dumps

__all__ = [
    "DEFAULT_MAX_BYTES",
    "MAX_DEPTH",
    "MAX_SAFE_INTEGER",
    "CanonicalError",
    "JsonValue",
    "action_bytes",
    "action_digest",
    "b64u",
    "b64u_decode",
    "digest",
    "digest_bytes",
    "dumps",
    "loads",
]

DEFAULT_MAX_BYTES: Final = 1_048_576

_MAX_INTEGER_CHARS: Final = len("-9007199254740991")
_DIGEST_PREFIX: Final = "sha-256:"

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(
    data: bytes | bytearray | memoryview, *, max_bytes: int = DEFAULT_MAX_BYTES, max_depth: int = MAX_DEPTH
) -> JsonValue:
    """Read one JSON value from UTF-8 bytes, strictly (RFC 8259 with the limits of RFC 7493).

    Returns `dict`, `list`, `str`, `int`, `float`, `bool` or None. Raises `CanonicalError` and nothing else.
    """
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if size > max_bytes:
        raise CanonicalError("too_large", f"more than {max_bytes} bytes")
    raw = bytes(data)
    if max_depth >= _PLAIN_DEPTH:
        value: JsonValue = _plain(raw)
        if value is not _DOUBT:
            return value
    return _exact(raw, max_depth)


def _exact(raw: bytes, max_depth: int) -> JsonValue:
    """The readable definition of what `loads` accepts and returns."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CanonicalError("not_utf8", f"not UTF-8 at byte {error.start}") from None
    try:
        value: JsonValue = _decoder.decode(text)
    except RecursionError:
        raise CanonicalError("too_deep", f"nested deeper than {max_depth} levels") from None
    except json.JSONDecodeError as error:
        raise CanonicalError("not_json", f"not JSON at character {error.pos}") from None
    # Each level needs a bracket, so few brackets prove that the value is shallow (those inside strings only add).
    if raw.count(b"[") + raw.count(b"{") > max_depth:
        _check_depth(value, max_depth)
    if _SURROGATE_ESCAPE.search(raw) is not None:
        _check_surrogates(value)
    return value


_PLAIN_DEPTH: Final = 8
_DOUBT: Final[Any] = object()


def _plain_type() -> Any:  # noqa: ANN401 - a union, built from the inside out
    """JSON without floats and integers beyond 2^53-1, in which at most `_PLAIN_DEPTH` arrays and objects nest."""
    integer = Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
    scalar = kind = str | integer | bool | None
    for _ in range(_PLAIN_DEPTH):
        kind = scalar | list[kind] | dict[str, kind]  # type: ignore[valid-type]
    return kind


_decode_plain: Final[Callable[[bytes], JsonValue]] = msgspec.json.Decoder(_plain_type()).decode
_encode_again = msgspec.json.Encoder().encode


def _plain(raw: bytes) -> Any:  # noqa: ANN401 - a JSON value or `_DOUBT`
    """The value of an easy text, or `_DOUBT`: three times faster than `_exact`.

    msgspec reads strictly but takes the last of two equal members. Without a backslash every quotation mark in the text
    begins or ends a string, and so it does in the text that is written from the value; a member that was dropped is
    missing there with its two quotation marks at least. A text that comes back in its full length lost nothing: what is
    written is never longer than what was read.
    """
    if not raw.isascii() or b"\\" in raw:
        return _DOUBT
    try:
        value = _decode_plain(raw)
    except (msgspec.DecodeError, RecursionError):
        return _DOUBT
    again = _encode_again(value)
    return value if len(again) == len(raw) or again.count(b'"') == raw.count(b'"') else _DOUBT


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Readers differ on which of the two counts: what one checks, the other would not do.
        raise CanonicalError("duplicate_key", "an object names one key twice")
    return members


def _read_integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_CHARS or not -MAX_SAFE_INTEGER <= (number := int(text)) <= MAX_SAFE_INTEGER:
        raise CanonicalError("number_out_of_range", "an integer beyond 2^53-1; send it as a string")
    return number


def _read_float(text: str) -> float:
    number = float(text)
    size = abs(number)
    if size > MAX_SAFE_INTEGER and (size < ES6_INTEGER_END or size == float("inf")):
        raise CanonicalError("number_out_of_range", "a number that has no exact canonical form; send it as a string")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise CanonicalError("not_json", f"{name} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_read_integer, parse_float=_read_float, parse_constant=_refuse_constant
)


def _check_depth(value: JsonValue, max_depth: int) -> None:
    level: list[JsonValue] = [value]
    for _ in range(max_depth):
        level = [below for item in level for below in _members(item)]
    if any(isinstance(item, (dict, list)) for item in level):
        raise CanonicalError("too_deep", f"nested deeper than {max_depth} levels")


def _members(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_surrogates(value: JsonValue) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError("lone_surrogate", "text with half of a surrogate pair") from None


# ------------------------------------------------------------------------------------------------------------- digests


def digest_bytes(data: bytes) -> str:
    """`"sha-256:"` + base64url of the SHA-256 of `data`."""
    return _DIGEST_PREFIX + b64u(hashlib.sha256(data).digest())


def digest(value: JsonValue) -> str:
    """`digest_bytes` of the canonical bytes of `value`."""
    return digest_bytes(dumps(value))


def action_bytes(tool: str, resource: str | None, args: JsonValue) -> bytes:
    """The canonical bytes of one action: `{"action": tool, "args": args, "resource": resource|null}`."""
    return dumps({"action": tool, "args": args, "resource": resource})


def action_digest(tool: str, resource: str | None, args: JsonValue) -> str:
    """The digest that decision, approval, grant and redemption share, and that a resource server recomputes."""
    return digest_bytes(action_bytes(tool, resource, args))


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/***")
"""What base64url has no use for becomes what no base64 has."""
_ENDS: Final = (b"\n", b"\n", b"==\n", b"=\n")
"""What `b2a_base64` puts behind the characters, by their number modulo 4; one left over stands for nothing."""
_LAST: Final = len("AA==\n")


def b64u(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return b2a_base64(data).rstrip(b"=\n").translate(_URL_SAFE).decode()


def b64u_decode(text: str) -> bytes:
    """Read base64url without padding; exactly one text stands for each byte string.

    Padding, characters outside the alphabet and non-zero trailing bits raise `CanonicalError` (not_base64url): two
    texts for one signature would let one token pass twice where tokens are remembered by their text.
    """
    size = len(text)
    left = size % 4
    try:
        padded = text.encode("ascii").translate(_FROM_URL_SAFE) + _ENDS[left]
        data = a2b_base64(padded)
    except ValueError:  # binascii.Error and UnicodeEncodeError are of this kind
        raise CanonicalError("not_base64url", "not base64url") from None
    # What is not of the alphabet was left out and is missing; only the last characters can hold bits of no byte.
    if len(data) != size * 3 // 4 or (left and b2a_base64(data[1 - left :]) != padded[-_LAST:]):
        raise CanonicalError("not_base64url", "not in the one base64url form of its bytes")
    return data
