"""A value with other members, whichever way its class makes values."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(value: T, /, **members: Any) -> T:  # noqa: ANN401 - the members of any value
    """`dataclasses.replace`, and the same for a `msgspec.Struct`. Raises `TypeError` for a name that is no member."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **members)
    made: T = dataclasses.replace(value, **members)  # type: ignore[type-var]  # a dataclass, or it says so itself
    return made
