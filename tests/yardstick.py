"""How a claim in seconds is judged: as a ratio to fixed work, in CPU time, in a fresh process.

Seconds say as much of the machine as of the code: a busy or slow one, or the heap of a test process that collects
garbage in everything it holds, makes 0.25 s into more than one. So the work is done as a person does it, in a process
of its own, between two rounds of a yardstick: pure Python and SHA-256, always the same. What the work took is told in
*reference seconds*: its CPU time by the yardstick's, times what the yardstick takes on the reference machine (2 cores,
quiet). Waiting, being paused and other processes do not count. A claim holds if the best of a few tries holds.

The program of a try ends with `yardstick.report(work)`; it can import the helpers of tests/.

Base install only.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

REFERENCE_S: Final = 0.055
"""What one round of the yardstick takes on the reference machine, in seconds of CPU."""
ROUNDS: Final = 80_000
TRIES: Final = 4
PATIENCE_S: Final = 600
HERE: Final = Path(__file__).parent


def measure() -> None:
    """One round of the yardstick: bytes, numbers, texts, a dict, and hashes."""
    seen, data = {}, b""
    for number in range(ROUNDS):
        data = hashlib.sha256(data + b"%d" % number).digest()
        seen[data[:4]] = data.hex()


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU that this process spends in `work`."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def report(work: Callable[[], object]) -> None:
    """In the fresh process: do the work once, and print as the last line what it took in reference seconds."""
    before, took, after = cpu(measure), cpu(work), cpu(measure)
    print(took / ((before + after) / 2) * REFERENCE_S)  # noqa: T201 - the answer of this process


def reference_seconds(program: str, *words: str, below: float, tries: int = TRIES) -> float:
    """What the work of `program`, called with `words`, takes at best, in reference seconds.

    The first try that is `below` ends it. Raises `AssertionError` with what a program said that failed.
    """
    best = float("inf")
    for _ in range(tries):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=HERE, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        best = min(best, float(done.stdout.splitlines()[-1]))
        if best < below:
            break
    return best
