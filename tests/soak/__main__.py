"""`python -m soak`: run the large sizes in slices; what was done for this commit is not done again.

    python -m soak [KIND ...] [--total N] [--minutes M]     all kinds, or these; stops after M minutes of slices
    python -m soak replay KIND SEED[:SIZE]                  one slice again, here
    python -m soak replay KIND NAME                         one named case of it again
    python -m soak table                                    what is done for this commit

Every slice is written down when it ends, under tests/soak-results. Exit code 1: a promise did not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(1, str(Path(__file__).parents[2] / "deploy" / "services"))

from soak.kinds import KINDS, Kind
from soak.results import FOLDER, Record, commit, replays, table
from soak.slices import replay_here, run_apart

SLICE_S: Final = 1800.0
"""No slice may take longer."""


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says."""
    if arguments[:1] == ["replay"]:
        return _replay(*arguments[1:3])
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}, or table; default: all")
    parser.add_argument("--total", type=int, help="another size than the design's")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no slice after so many minutes")
    given = parser.parse_args(arguments)
    names = [name for name in given.kinds if name != "table"] or list(KINDS)
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]}; there are {', '.join(KINDS)}")
    end = time.monotonic() + (0 if "table" in given.kinds else given.minutes * 60)
    name, records = commit(), []
    for one in names:
        kind = KINDS[one]
        record = Record.resumed(FOLDER, name, one, kind, given.total or kind.total)
        records.append(record)
        soak_one(record, kind, end=end, folder=FOLDER)
    return _close(records)


def soak_one(record: Record, kind: Kind, *, end: float, folder: Path) -> None:
    """Run slices until the total is done or the time is over."""
    while record.done < record.total and time.monotonic() < end:
        seed, size = len(record.slices) + 1, min(kind.size, record.total - record.done)

        def told(done: int, seed: int = seed, size: int = size) -> None:
            line = (
                f"{record.kind}: {record.done + done} of {record.total} {record.unit} (seed {seed}: {done} of {size})"
            )
            sys.stderr.write(f"{line}\n")

        told(0)
        record.slices.append(run_apart(kind, seed, size, limit_s=SLICE_S, told=told))
        record.save(folder)


def _close(records: Sequence[Record]) -> int:
    sys.stdout.write(table(records) + "\n")
    broken = [text for record in records for text in replays(record)]
    for text in broken:
        sys.stdout.write(f"\n{text}\n")
    return 1 if broken else 0


def _replay(name: str, what: str) -> int:
    result = replay_here(KINDS[name], what)
    counts = ", ".join(f"{value} {word}" for word, value in result.counts.items())
    sys.stdout.write("\n".join([f"{name} {what}: {counts}", *result.violations]) + "\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
