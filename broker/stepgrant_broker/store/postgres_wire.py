"""Values on their way to PostgreSQL and back.

Rules:
* Numbers go as text, which fits every width; text and bytes go as they are, with their length.
* A NUL is refused by name: PostgreSQL's text cannot hold it, and nothing may be cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from stepgrant_broker.domain.errors import InvalidRequest

TEXT, BINARY = 0, 1
Encoded: TypeAlias = "tuple[list[bytes | None], list[int]]"
"""Values, and the format of each."""


def _integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    16: lambda value: value != b"\0",
    17: bytes,
    20: _integer,
    21: _integer,
    23: _integer,
    25: bytes.decode,
    1043: bytes.decode,
}
"""By the type's number: boolean, bytea, bigint, smallint, integer, text, varchar. No other is in our tables."""


def encoded(places: Sequence[Any]) -> Encoded:
    """The values in their places. Raises `InvalidRequest` for a NUL; `ValueError`, `TypeError` for what has no form."""
    values: list[bytes | None] = []
    formats: list[int] = []
    for value in places:
        kind = type(value)
        if kind is str:
            if "\0" in value:
                raise InvalidRequest("text must not hold the character NUL")
            values.append(value.encode())
            formats.append(BINARY)
        elif kind is int:
            values.append(b"%d" % value)
            formats.append(TEXT)
        elif value is None:
            values.append(None)
            formats.append(TEXT)
        elif kind is bytes:
            values.append(value)
            formats.append(BINARY)
        elif kind is tuple:
            values.append(_array(value))
            formats.append(TEXT)
        else:
            raise TypeError(f"a {kind.__name__} has no column")
    return values, formats


def _array(texts: Sequence[str]) -> bytes:
    """An array of texts, as PostgreSQL writes it."""
    if any("\0" in text for text in texts):
        raise InvalidRequest("text must not hold the character NUL")
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return ("{" + ",".join(f'"{text}"' for text in quoted) + "}").encode()
