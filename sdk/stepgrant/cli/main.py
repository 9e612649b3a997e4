"""The entry point of `stepgrant`: builds the commands, runs one, and turns every error into one line and a code.

Nothing but the standard library is imported before it is known that the extra is installed, so that a base install
says what is missing instead of failing.

A process of its own (`main()` without arguments) spends nothing on garbage that is not there: what is loaded at the
start stays until the end, and the end of the process gives everything back at once. Measured of a broker that starts
and stops: 0.2 s of looking for garbage while modules are loaded, 0.4 s of taking them apart one by one at the end.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Final

NEEDED: Final = frozenset({"typer", "rich", "shellingham", "annotated_doc"})
COLLECT_AFTER: Final = 50_000
"""How many new containers there are before the youngest are looked through; Python's own 700 fit small programs."""
_USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` without the program's name (default: this process's). Returns the exit code.

    Without `arguments` the process is taken to be the command's own, which ends when this returns.
    """
    if arguments is not None:
        return _run(list(arguments))
    gc.set_threshold(COLLECT_AFTER)
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()


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
