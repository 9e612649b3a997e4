"""The command line as a program that `faults/forks.py` can fork: `python typed.py WORDS...` is `stepgrant WORDS...`."""

from __future__ import annotations

import sys

from stepgrant.cli.main import main

if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder: a command looks for no module among those of tests
    sys.exit(main())
