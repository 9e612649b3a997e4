"""Where tests write: in memory where there is room, so that no test waits for a disk.

What is written here outlives a killed process just as on a disk, and no test of ours takes a machine's power away. A
database that is copied, or a commit that waits for its fsync, costs a disk several times as much as memory.

- Only on Linux, with enough room, and where nobody said otherwise (TMPDIR, --basetemp, PYTEST_DEBUG_TEMPROOT).
- A run has a folder of its own and removes it. After a failed run it stays to be looked at, until another run begins.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what lies in it has a name that nobody can guess, and our rights
NEEDED: Final = 4 << 30
"""Bytes, several times what a run has there at once; and so much again has to be left for everything else."""
PREFIX: Final = "stepgrant-tests-"
PASSED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the place before anything is written; xdist's workers inherit it."""
    said = config.option.basetemp or any(os.environ.get(name) for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT"))
    if hasattr(config, "workerinput") or said or not has_room():
        return
    forget_others()
    folder, lock = claim()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    atexit.register(leave, folder, lock, config.stash)  # before pytest's own, which are called first and look into it


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remember how it ended; after `services.py`, which may let the run fail."""
    session.config.stash[PASSED] = session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def leave(folder: Path, lock: int, stash: pytest.Stash) -> None:
    """The end of this process, when all that wrote there has ended."""
    if stash.get(PASSED, False):
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def has_room() -> bool:
    """Whether memory can be had as a folder, and more than enough of it."""
    with suppress(OSError, ValueError, StopIteration):
        about = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = int(next(line.split()[1] for line in about if line.startswith("MemAvailable:"))) << 10
        return os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free > NEEDED and free > 2 * NEEDED
    return False


def claim() -> tuple[Path, int]:
    """A folder that others can pass through, as PostgreSQL's own user has to; ours while the descriptor is open."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
        with suppress(OSError):  # another run that begins now took it for one that was left
            folder.chmod(0o711)
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def forget_others() -> None:
    """Remove what runs left that are over."""
    for folder in MEMORY.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
