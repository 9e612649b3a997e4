"""On which line each member and element of a JSON text stands. Pure; the text was read strictly before.

A finding about settings must lead to the very place: the same name may stand in twenty tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

Place: TypeAlias = tuple[str, ...]
"""Names of members and numbers of elements that lead to a value; `()` is the whole."""

_WORDS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:\n]|[^\s\[\]{},:"]+')


def lines_of(text: str) -> Mapping[Place, int]:
    """The line (from 1) of each member's name and of each element."""
    found: dict[Place, int] = {(): 1}
    inside: list[str] = []
    at: list[str | int | None] = []
    line = 1
    for word in _WORDS.findall(text):
        match word:
            case "\n":
                line += 1
            case "}" | "]":
                inside.pop()
                at.pop()
            case ",":
                number = at[-1]
                at[-1] = number + 1 if isinstance(number, int) else None
            case ":":
                continue
            case _:
                if inside and inside[-1] == "{" and at[-1] is None:
                    at[-1] = json.loads(word)
                found.setdefault(tuple(str(one) for one in at), line)
                if word in "{[":
                    inside.append(word)
                    at.append(None if word == "{" else 0)
    return found
