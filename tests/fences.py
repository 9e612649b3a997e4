"""What a README shows in fences, and a shell's lines as a reader copies them.

A fence without a language would be seen by no test, so there is none: `fences` refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCE = re.compile(r"^ *```(.*)$")


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Each fence's language and content, in their order. Raises `ValueError` for one that has none, or does not end."""
    language, inside = "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence is None:
            inside += [line] if language else []
        elif language:
            if fence[1].strip():
                raise ValueError(f"line {number}: a fence begins before the last one ended")
            yield language, "".join(f"{one}\n" for one in inside)
            language, inside = "", []
        elif language := fence[1].strip():
            continue
        else:
            raise ValueError(f"line {number}: a fence without a language, so nobody knows who runs it")
    if language:
        raise ValueError(f"the last fence ({language}) does not end")


def commands(text: str) -> list[str]:
    """The lines of all fences of the shell, each without its comment."""
    shell = [content for language, content in fences(text) if language == "sh"]
    lines = [line.partition(" #")[0].strip() for content in shell for line in content.splitlines()]
    return [line for line in lines if line]
