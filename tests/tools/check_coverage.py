"""Refuse a core that its unit and property tests do not reach: lines and branches, each folder by itself.

The total that `coverage report` prints mixes lines with branches, and both folders: many plain
lines can hide the branches nobody tried. Here each of the four figures has to reach the limit.

Usage: check_coverage.py REPORT     (the file of `coverage json`; exit code 0 or 1; one line for each folder)
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

LIMIT: Final = 95.0
FOLDERS: Final = ("broker/stepgrant_broker/domain", "broker/stepgrant_broker/usecases")


def percent(report: dict[str, Any], folder: str, what: str) -> float:
    """The share of `what` ("lines" or "branches") in `folder` that ran, in percent; 0.0 if no file is there."""
    kinds = {"lines": ("covered_lines", "num_statements"), "branches": ("covered_branches", "num_branches")}
    covered, total = kinds[what]
    files = [one["summary"] for path, one in report["files"].items() if Path(path).is_relative_to(folder)]
    ran, all_of_them = (sum(summary[key] for summary in files) for key in (covered, total))
    return 100.0 * ran / all_of_them if all_of_them else 0.0


def main(arguments: list[str]) -> int:
    """Print both figures of each folder; 0 if all reach the limit."""
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    enough = True
    for folder in FOLDERS:
        lines, branches = (percent(report, folder, what) for what in ("lines", "branches"))
        enough = enough and lines >= LIMIT and branches >= LIMIT
        print(f"coverage: {folder}: lines {lines:.2f} %, branches {branches:.2f} %, at least {LIMIT:.0f} % of each")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
