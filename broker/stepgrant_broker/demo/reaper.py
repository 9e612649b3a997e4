"""Kills what is left when the demo itself dies, in whatever way. Standard library only; run as a script.

Its standard input is a pipe of which the demo holds the other end: `+PID` for each process that was started, `-PID`
once it was waited for. The kernel closes the pipe even after kill -9, and what was not waited for is then killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable


def left_over(lines: Iterable[str]) -> list[int]:
    """The pids that were started and not waited for."""
    alive: dict[int, None] = {}
    for line in lines:
        sign, digits = line[:1], line[1:].strip()
        if not digits.isdecimal():
            continue
        if sign == "+":
            alive[int(digits)] = None
        elif sign == "-":
            alive.pop(int(digits), None)
    return list(alive)


def main() -> None:
    """Wait for the end of the demo, then clean up."""
    # A Ctrl-C at the terminal is for the demo; this process has to outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for pid in left_over(sys.stdin):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
