"""Hypothesis strategies for every value that the store keeps, made from the fields' types: a new field is covered."""

# ruff: noqa: ANN401 - type hints, and values of any type

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
"""No NUL: names hold none, and PostgreSQL could not keep it. Inside JSON text it is escaped, so it may be there."""
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(ANY_TEXT, below, max_size=3),
    max_leaves=6,
)


def of(value: type[Any], **fixed: Any) -> st.SearchStrategy[Any]:
    """Values of a dataclass; `fixed` are its fields with a given value."""
    hints = typing.get_type_hints(value)
    fields = {name: st.just(fixed[name]) if name in fixed else _of(hint) for name, hint in hints.items()}
    return st.builds(value, **fields)


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(hint, types.UnionType):
        return st.one_of(*(st.none() if part is types.NoneType else _of(part) for part in hint.__args__))
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT, int: INT64, bool: st.booleans(), bytes: st.binary(max_size=50),
    }  # fmt: skip
    if hint in scalars:
        return scalars[hint]
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return st.sampled_from(hint.__args__)
    if origin is tuple:
        inner = hint.__args__[0]
        return st.lists(ANY_TEXT if inner is str else _of(inner), max_size=3).map(tuple)
    if origin is Mapping:
        values = {str: ANY_TEXT, int: st.integers(-(2**60), 2**60)}.get(hint.__args__[1], JSON)
        return st.dictionaries(ANY_TEXT, values, max_size=3)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    return of(hint)
