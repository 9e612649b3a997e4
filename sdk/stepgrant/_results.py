"""Arguments and results as canonical JSON, and back (`integrations.md` R6).

Rules:
* What a first run gets is what a resumed one gets: a value that JSON would change (a tuple, an enum, 1.0, the order of
  an object's keys) is given back as it was recorded, also the first time.
* A tool whose declared return type cannot be JSON is refused when it is declared, before it could have an effect.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from typing import Any, Final, is_typeddict

import msgspec

from stepgrant._errors import NotJson
from stepgrant.canonical import CanonicalError, JsonValue, dumps

_SCALARS: Final = frozenset({str, int, bool, types.NoneType})
_decode: Final = msgspec.json.Decoder().decode
_JSON_ORIGINS: Final = frozenset(
    {
        list,
        dict,
        tuple,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
        collections.abc.Iterable,
        collections.abc.Collection,
    }
)
_TRANSPARENT: Final = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar)


def encode(value: object, what: str) -> bytes:
    """Canonical bytes. Raises `NotJson`; `what` names the value in it."""
    try:
        return dumps(typing.cast("JsonValue", value))
    except CanonicalError as error:
        raise NotJson(what=what, path=error.path or "", why=error.detail) from None


def decode(data: bytes) -> Any:  # noqa: ANN401  # any JSON value
    """What `encode` wrote."""
    return _decode(data)


def as_recorded(value: object, data: bytes) -> Any:  # noqa: ANN401  # any JSON value
    """`value` as a resumed run would get it; `data` are its bytes. The value itself where that is the same."""
    return value if _unchanged(value) else _decode(data)


def _unchanged(value: object) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return not typing.cast("float", value).is_integer()
    if kind is list:
        return all(map(_unchanged, typing.cast("list[object]", value)))
    if kind is dict:
        members = typing.cast("dict[str, object]", value)
        keys = list(members)
        return keys == sorted(keys) and all(map(_unchanged, members.values()))
    return False


def why_not_json(hint: Any) -> str | None:  # noqa: ANN401  # a type hint
    """Why no value of this declared type can be JSON; None where one can, or nobody knows."""
    if hint is None or hint is Any or isinstance(hint, (str, typing.TypeVar, typing.ForwardRef)):
        return None
    origin = typing.get_origin(hint)
    if origin in _TRANSPARENT:
        return why_not_json(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        reasons = [why_not_json(one) for one in typing.get_args(hint)]
        return None if None in reasons else reasons[0]
    if origin is typing.Literal:
        return None
    if origin is not None:
        return _why_not_container(hint, origin)
    if not isinstance(hint, type) or hint is object or is_typeddict(hint):
        return None
    if issubclass(hint, (str, int, float, list, dict, tuple, types.NoneType, collections.abc.Mapping)):
        return None
    return f"a {hint.__qualname__} is not JSON"


def _why_not_container(hint: Any, origin: Any) -> str | None:  # noqa: ANN401  # type hints
    if origin not in _JSON_ORIGINS:
        name = getattr(origin, "__qualname__", str(origin))
        return f"a {name} is not JSON" if isinstance(origin, type) else None
    inside = [one for one in typing.get_args(hint) if one is not ...]
    if issubclass(origin, collections.abc.Mapping) and len(inside) == 2:  # noqa: PLR2004  # key and value
        key, inside = inside[0], inside[1:]
        if isinstance(key, type) and not issubclass(key, str) and key is not object:
            return f"an object's keys are text, not {key.__qualname__}"
    return next((why for why in map(why_not_json, inside) if why is not None), None)
