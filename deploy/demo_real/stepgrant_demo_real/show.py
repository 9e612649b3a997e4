"""One showing of the real demo: `main` is the whole face of `make demo-real`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

import stepgrant_demo_real
from stepgrant_broker.demo.show import run
from stepgrant_demo_real.story import tell_story

LIMIT_S: Final = 120.0
"""The promise on a quiet machine of two cores: a showing takes no longer, the services' binaries being there."""


def main(arguments: Sequence[str]) -> int:
    """Run it. Returns 0 only if every check held, 1 otherwise, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo-real", description=stepgrant_demo_real.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document for machines instead")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs, policy and receipt")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that it may take; default %(default)g")
    options = parser.parse_args(arguments)
    return run(as_json=options.json, keep=options.keep, story=tell_story, limit_s=options.limit)
