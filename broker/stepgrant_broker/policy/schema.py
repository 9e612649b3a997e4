"""The part of JSON Schema 2020-12 that policies need: where a path leads, and whether settings fit.

Rules:
* Known are type, enum, properties, required, additionalProperties, items, minimum, maximum, minProperties,
  maxProperties, and two of our own that `check_settings` reads: `x-among` (where else a text, or a member's name under
  `propertyNames`, must stand) and `x-at-most` (the member beside it that a number must not exceed). Everything else in
  a schema is for people and other tools.
* An object without `additionalProperties: false` has no misspelt members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files as package_files
from typing import Any, Final, TypeAlias, TypeGuard

from stepgrant import canonical
from stepgrant_broker.policy.bundle import STARTER

Schema: TypeAlias = Mapping[str, Any]
"""One schema object."""

ANY: Final[Schema] = {}
"""Admits everything and says nothing."""

_TYPES: Final[Mapping[type, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip


class NoMember(Exception):
    """The schema knows that this path leads nowhere."""

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__(known)
        self.known = known


@cache
def input_schema() -> Schema:
    """The schema of the input document (`protocol.md` §5), which every policy is checked against."""
    schema = canonical.loads((package_files(STARTER) / "schemas" / "input.json").read_bytes())
    if not isinstance(schema, dict):
        raise TypeError("schemas/input.json must hold an object")
    return schema


def types_of(schema: Schema) -> frozenset[str]:
    """The JSON types that it admits; empty when it does not say."""
    named = schema.get("type", ())
    return frozenset((named,) if isinstance(named, str) else named)


def type_of(value: object) -> str:
    """The JSON type of a value; whole numbers are `integer`."""
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return _TYPES[type(value)]


def admits(schema: Schema, value: object) -> bool:
    """Whether a constant may stand where this schema is: by its type, and by `enum` where there is one."""
    types = types_of(schema)
    kind = type_of(value)
    if types and kind not in types and not (kind == "integer" and "number" in types):
        return False
    return "enum" not in schema or value in schema["enum"] or (value is None and "null" in types)


def step(schema: Schema, key: object) -> Schema:
    """Where `key` leads (`None`: any key). Raises `NoMember` when nothing can be there."""
    types = types_of(schema)
    if not types or types & {"object", "array"} == {"object", "array"}:
        return ANY
    if "object" in types:
        return _member(schema, key)
    if "array" in types:
        if key is None or (isinstance(key, int) and not isinstance(key, bool)):
            return _schema(schema.get("items", True))
        raise NoMember(("an index",))
    raise NoMember(())


def element(schema: Schema) -> Schema:
    """What one finds when walking over it."""
    try:
        return step(schema, None)
    except NoMember:
        return ANY


def _member(schema: Schema, key: object) -> Schema:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    if key is None:
        return _schema(more) if not properties else ANY
    if isinstance(key, str) and key in properties:
        return properties[key]
    if more is False:
        raise NoMember(tuple(properties))
    return _schema(more)


def _schema(value: object) -> Schema:
    return value if isinstance(value, dict) else ANY


def problems(schema: Schema, value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every place of `value` that does not fit, with what is wrong there."""
    if not admits(schema, value):
        wanted = f"one of {', '.join(map(str, schema['enum']))}" if "enum" in schema else " or ".join(types_of(schema))
        yield path, f"must be {wanted}"
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(_schema(schema.get("items", True)), item, (*path, str(index)))
    elif is_number(value):
        if value < schema.get("minimum", value):
            yield path, f"must be at least {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield path, f"must be at most {schema['maximum']}"


def walk(
    schema: Schema, value: object, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Schema, object]]:
    """Every value that the schema describes, with its place and what is said of it there."""
    yield place, schema, value
    if isinstance(value, dict):
        for name, item in value.items():
            with suppress(NoMember):
                yield from walk(_member(schema, name), item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(_schema(schema.get("items", True)), item, (*place, str(index)))


def schema_problem(value: object) -> str:
    """The first thing that keeps a value from being a schema as this module reads it; empty when nothing does."""
    if not isinstance(value, dict):
        return "a schema must be an object"
    for member, sound in _SOUND.items():
        if member in value and not sound(value[member]):
            return f"{member} is not what JSON Schema wants there"
    inner = [*value.get("properties", {}).values()]
    inner += [value[name] for name in _INNER if not isinstance(value.get(name, True), bool)]
    return next((problem for one in inner if (problem := schema_problem(one))), "")


def _is_type(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and all(isinstance(name, str) and name in _TYPE_NAMES for name in names)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


_INNER: Final = ("items", "additionalProperties", "propertyNames")
_TYPE_NAMES: Final = frozenset(_TYPES.values())
_SOUND: Final[Mapping[str, Callable[[object], bool]]] = {
    "type": _is_type,
    "enum": lambda value: isinstance(value, list),
    "properties": lambda value: isinstance(value, dict),
    "required": _is_names,
    "minimum": is_number,
    "maximum": is_number,
    "minProperties": is_number,
    "maxProperties": is_number,
    "x-among": _is_names,
    "x-at-most": lambda value: isinstance(value, str),
}


def _object_problems(
    schema: Schema, value: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in schema.get("required", ()):
        if name not in value:
            yield path, f"lacks {name}"
    least, most = schema.get("minProperties", 0), schema.get("maxProperties", len(value))
    if not least <= len(value) <= most:
        wanted = f"at least {least}" if len(value) < least else f"at most {most}"
        yield path, f"must have {wanted} of: {', '.join(schema.get('properties', {})) or 'any'}"
    for name, item in value.items():
        try:
            yield from problems(_member(schema, name), item, (*path, name))
        except NoMember as unknown:
            yield (*path, name), f"is not known here (known: {', '.join(sorted(unknown.known))})"


def data_root(data_schemas: Mapping[str, Schema]) -> Schema:
    """One schema of `data` that knows what the schemas of the `data.json` files know."""
    root: dict[str, Any] = {"type": "object", "properties": {}}
    described: list[list[str]] = []
    for folders in sorted((path.split("/")[:-1] for path in data_schemas), key=len):
        if any(folders[: len(outer)] == outer for outer in described):
            # The outer schema already says what is here.
            continue
        described.append(folders)
        at = root
        for folder in folders[:-1]:
            at = at["properties"].setdefault(folder, {"type": "object", "properties": {}})
        at["properties"][folders[-1]] = data_schemas["/".join([*folders, "data.json"])]
    return root


def describes(data_schemas: Mapping[str, Schema], pattern: tuple[str | None, ...]) -> bool:
    """Whether a schema of the data knows this path."""
    known = {tuple(path.split("/")[:-1]) for path in data_schemas}
    if not any(pattern[: len(folder)] == folder for folder in known):
        return False
    at: Schema = data_root(data_schemas)
    for part in pattern:
        try:
            at = step(at, part)
        except NoMember:
            return False
    return True
