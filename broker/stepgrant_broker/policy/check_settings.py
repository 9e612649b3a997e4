"""Checks of settings (`data.json`) against the `schema.json` beside them: shape, names, numbers that go together.

Why each is refused:
* A misspelt member is no limit.
* A name that nothing else names (a flow of a label that no tool carries, a meter without a budget) does nothing, and
  reads as if it did. The schema says with `x-among` where a name must stand too; what a rule names as a text is known.
* A number beyond the one that the schema names with `x-at-most` is never reached.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgrant_broker.policy import schema
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.findings import Finding
from stepgrant_broker.policy.json_lines import Place, lines_of
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.schema import Schema
from stepgrant_broker.policy.syntax import Const, expressions

ISSUERS: Final = "@issuers"
"""In `x-among`: the issuers of the broker, which no file of the policy says."""
HOOK: Final = ".reconcile"
LISTED: Final = 8
"""Names in a finding where none is near."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a `data.json` that must stand elsewhere too."""

    file: str
    place: Place
    name: str
    among: tuple[str, ...]


def shape_of_settings(bundle: Bundle, schemas: Mapping[str, Schema]) -> Iterator[Finding]:
    """Where the settings do not fit. `schemas` by the path of their `data.json`."""
    for path, one in schemas.items():
        lines = lines_of(bundle.files.get(path, ""))
        for place, problem in schema.problems(one, value_at(bundle, path)):
            yield Finding(path, lines.get(place, 1), "bad_settings", f"/{'/'.join(place)} {problem}", "correct it")


def meaning_of_settings(
    bundle: Bundle, schemas: Mapping[str, Schema], index: Index, issuers: Collection[str] | None
) -> Iterator[Finding]:
    """Names that nothing else names, and numbers beyond others. `issuers`: the broker's; `None` looks up none."""
    said = {e.value for rule in index.rules() for e in expressions(rule) if isinstance(e, Const)}
    for path, one in schemas.items():
        value, lines = value_at(bundle, path), lines_of(bundle.files.get(path, ""))
        for place, problem in _beyond(one, value):
            yield Finding(path, lines.get(place, 1), "bad_settings", f"/{'/'.join(place)} {problem}", "correct it")
        for named in _named(path, one, value):
            if ISSUERS in named.among and issuers is None:
                continue
            known = _known(value, named, issuers or ())
            # A tool's own hook is named after it, and needs no entry.
            if named.name.removesuffix(HOOK) not in known | said and named.name not in known | said:
                yield _nowhere(named, known, lines.get(named.place, 1))


def issuers_named(bundle: Bundle) -> Iterator[tuple[Named, int]]:
    """The issuers that the settings name, each with its line."""
    for path, one in bundle.schemas.items():
        if not schema.schema_problem(one):
            lines = lines_of(bundle.files.get(path, ""))
            for named in _named(path, one, value_at(bundle, path)):
                if ISSUERS in named.among:
                    yield named, lines.get(named.place, 1)


def value_at(bundle: Bundle, path: str) -> Any:  # noqa: ANN401  (JSON)
    """What the `data.json` of this path says; an empty object where there is none."""
    value: Any = bundle.data
    for folder in path.split("/")[:-1]:
        value = value.get(folder, {}) if isinstance(value, Mapping) else {}
    return value


def _named(path: str, root: Schema, value: object) -> Iterator[Named]:
    for place, one, item in schema.walk(root, value):
        if isinstance(item, str) and "x-among" in one:
            yield Named(path, place, item, tuple(one["x-among"]))
        names = one.get("propertyNames")
        among = names.get("x-among") if isinstance(names, Mapping) else None
        if among and isinstance(item, Mapping):
            yield from (Named(path, (*place, name), name, tuple(among)) for name in item)


def _known(value: object, named: Named, issuers: Collection[str]) -> set[str]:
    known: set[str] = set()
    for where in named.among:
        known.update(issuers if where == ISSUERS else _names_at(value, where.split("/"), named.place))
    return known


def _names_at(value: object, parts: list[str], place: Place) -> Iterator[str]:
    """The members' names or the texts there. `*` is every member, `=` the one that the place itself lies in."""
    found = [value]
    for depth, part in enumerate(parts):
        objects = [one for one in found if isinstance(one, Mapping)]
        if part == "*":
            found = [item for one in objects for item in one.values()]
        else:
            name = (place[depth] if depth < len(place) else None) if part == "=" else part
            found = [one[name] for one in objects if name in one]
    for one in found:
        if isinstance(one, Mapping | list):
            yield from (name for name in one if isinstance(name, str))


def _nowhere(named: Named, known: set[str], line: int) -> Finding:
    wanted = " or ".join(_told(where, named.place) for where in named.among)
    message = f"/{'/'.join(named.place)}: {named.name} is not among {wanted}, so this does not do what it says"
    close = difflib.get_close_matches(named.name, sorted(known), n=1)
    listed = ", ".join(sorted(known)[:LISTED]) or "nothing"
    return Finding(named.file, line, "unknown_setting", message, f"write {close[0]}" if close else f"known: {listed}")


def _told(where: str, place: Place) -> str:
    if where == ISSUERS:
        return "the issuers of the broker"
    return "/" + "/".join(place[depth] if part == "=" else part for depth, part in enumerate(where.split("/")))


def _beyond(root: Schema, value: object) -> Iterator[tuple[Place, str]]:
    for place, one, item in schema.walk(root, value):
        if isinstance(item, Mapping):
            for name, member in one.get("properties", {}).items():
                most = member.get("x-at-most")
                here, there = item.get(name), item.get(most)
                if schema.is_number(here) and schema.is_number(there) and here > there:
                    yield (*place, name), f"is {here}, more than {most} ({there}), so it is never reached"
