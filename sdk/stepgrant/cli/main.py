"""The entry point of `stepgrant`: builds the commands, runs one, and turns every error into one line and a code.

Nothing but the standard library is imported before it is known that the extra is installed, so that a base install
says what is missing instead of failing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from stepgrant.cli import garbage

NEEDED: Final = frozenset({"typer", "rich", "shellingham", "annotated_doc"})
_USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` without the program's name (default: this process's). Returns the exit code.

    Without `arguments` the process is the command's own, which ends when this returns.
    """
    if arguments is not None:
        return _run(list(arguments))
    garbage.begin()
    try:
        return _run(sys.argv[1:])
    finally:
        garbage.end()


def _run(words: list[str]) -> int:
    try:
        import rich
        import typer
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in NEEDED:
            raise
        sys.stderr.write("stepgrant: the command line needs one more part: pip install 'stepgrant[cli]'\n")
        return _USAGE
    del rich, typer
    from stepgrant.cli import running

    return running.run(words)


if __name__ == "__main__":
    sys.exit(main())
