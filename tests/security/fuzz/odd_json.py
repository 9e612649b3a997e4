"""JSON that is almost right: values, members and bytes that a reader may take for something else."""

from __future__ import annotations

import json
import random
from typing import Any, Final

VALUES: Final[tuple[object, ...]] = (
    None, True, False, 0, 1, -1, 2, 10, 60, 60.0, 300, 301, 1e9, 1.5, -0.0, 0.1, 2**53, 2**64, 1e308, "", "x", "allow",
    "deny", "once", "read", "required", "jwt", "a:b", "A", "ok\n", " ok", "ok ", "é", "\x00", "\u2028", "x" * 600, "1",
    "true", "*", "approved:apr_1", [], ["x"], ["x", "x"], [None], [[]], ["ok"] * 40, {}, {"x": 1}, {"": 1},
    {"a": {"b": []}},
)  # fmt: skip


def value(rng: random.Random, depth: int = 2) -> Any:  # noqa: ANN401 - any JSON value
    """Any value, with a liking for those that are nearly right."""
    if depth == 0 or rng.random() < 0.7:
        return rng.choice(VALUES)
    if rng.random() < 0.5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(VALUES)): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def changed(rng: random.Random, document: Any, odd: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as above
    """The document with one thing changed somewhere: a value, a name, one member more or less, an item twice."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.15:
        return rng.choice(odd) if odd and rng.random() < 0.5 else value(rng)
    if isinstance(document, list):
        items = list(document)
        at = rng.randrange(len(items))
        match rng.randrange(4):
            case 0:
                items.insert(at, items[at])
            case 1:
                del items[at]
            case 2:
                items[at], items[-1] = items[-1], items[at]
            case _:
                items[at] = changed(rng, items[at], odd)
        return items
    members = dict(document)
    name = rng.choice(sorted(members))
    match rng.randrange(6):
        case 0:
            members[rng.choice([name.upper(), name + " ", name + "\x00", "x", "", "__proto__"])] = value(rng)
        case 1:
            del members[name]
        case 2:
            members[name + "s"] = members.pop(name)
        case _:
            members[name] = changed(rng, members[name], odd)
    return members


def text(rng: random.Random, document: object) -> bytes:
    """Its bytes; one time in four not quite JSON, or not quite one document."""
    true = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.75:
        return true
    at = rng.randrange(len(true))
    first = true[:1]
    return rng.choice(
        [true[:at], true[:at] + bytes([rng.randrange(256)]) + true[at + 1 :],
         true + rng.choice([b" x", b",", b"\x00", true]),
         b"\xef\xbb\xbf" + true, first + b'"effect":"allow",' + true[1:], true[:-1] + b',"effect":"allow"' + true[-1:],
         true[:-1] + b',"reasons":["ok"]' + true[-1:], true.replace(b'"', b"'"), true.replace(b":", b":\xc2\xa0"),
         true.replace(b"60", b"6e1"), true.replace(b"1", b"01"), true.replace(b"1", b"NaN"),
         true.replace(b"1", b"1e999"),
         b"[" * 3000 + true + b"]" * 3000, true + b" " * 70_000, b"", true.decode("utf-8", "replace").encode("utf-16")]
    )  # fmt: skip
