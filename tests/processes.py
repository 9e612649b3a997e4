"""`stepgrant` as people start it: a process of its own, whose lines a test waits for.

Where tests are inside `forking()` of `faults/forks.py` that process is forked from one that has imported already what
a command imports, which takes most of its life. It is a new process in everything else.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typed
from faults.forks import Process, lived, spawned

COMMAND = Path(typed.__file__)
PATIENCE_S = 60.0
ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """The environment of a person without settings of Stepgrant."""
    left = ("STEPGRANT_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    # Compiled once for all of them: a process that compiles the broker's libraries anew takes seconds to start.
    ours = {"HOME": "/nonexistent", "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "pycache")}
    return {**kept, **ours, **more}


def stepgrant(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return within(PATIENCE_S, folder, *words, **more)


def within(patience_s: float, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. One that is not over in time is killed, and its errors say so."""
    given = environment(**more)
    code, out, errors = lived(COMMAND, *words, environment=given, patience_s=patience_s, folder=folder)
    return subprocess.CompletedProcess([*words], code, out, errors)


def gone(pid: int) -> bool:
    """Whether this process ended; one that nobody has waited for yet did too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " in stat.read_text()


@dataclass
class Running:
    """A process with everything that it has written so far, stdout and stderr together."""

    process: Process
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first place where `pattern` stands, once it does. A process that ended before is a failure."""
        end = time.monotonic() + PATIENCE_S
        while True:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.text)
            if found is not None:
                return found
            assert not ended, f"it ended without {pattern!r}:\n{self.text}"
            assert time.monotonic() < end, f"no {pattern!r} in time:\n{self.text}"
            time.sleep(0.05)

    def ended(self) -> int:
        """Its exit code, once it ended."""
        return self.process.wait(PATIENCE_S)


@contextmanager
def started(folder: Path, log: Path, *words: str, **more: str) -> Iterator[Running]:
    """A command that runs while the block does; it is killed at the end if it still runs."""
    with log.open("wb") as out:
        fd = out.fileno()
        process = spawned(COMMAND, *words, environment=environment(**more), stdout=fd, stderr=fd, folder=folder)
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
