"""`stepgrant demo`: an agent is killed, comes back, and each piece of work is done exactly once.

Everything is real and on this machine's loopback: a broker, five targets, agents and command lines, each a process of
its own, killed and frozen by signals. `main` is the whole face; the story is in `story.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns 0 only if every check held, 1 otherwise, 130 after Ctrl-C.

    Args:
        arguments: `--json` (one document on stdout, for machines), `--keep` (keep the folder), `--limit` (seconds that
            it may take, for machines that do more than show it); default: none of them.
    """
    parser = argparse.ArgumentParser(prog="stepgrant demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document for machines instead")
    parser.add_argument("--keep", action="store_true", help="keep the folder with database, books, logs and receipt")
    parser.add_argument("--limit", type=float, help="seconds that it may take; default: what the demo promises")
    options = parser.parse_args(list(arguments or ()))
    from stepgrant_broker.demo.show import LIMIT_S, run

    return run(as_json=options.json, keep=options.keep, limit_s=LIMIT_S if options.limit is None else options.limit)
