"""The agent's processes: one life after the other, each in a process group of its own, and none left behind.

Rules:
* A life's whole group is killed once its first process has ended: what an agent starts and forgets is no part of the
  next life. Nobody else's process is ever signalled.
* Output goes to a file, whatever bytes it is; it is read for last words only, and shown as visible text.
* A reaper outlives this process for the case that it is killed itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.demo import reaper

LAST_LINES: Final = 8
LAST_BYTES: Final = 8_192
POLL_S: Final = 0.02
GONE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a life ended. `code`: an exit code, or below zero the signal. `stopped`: by the rehearsal, as planned."""

    code: int
    seconds: float
    stopped: bool
    in_time: bool
    last_words: tuple[str, ...]

    @property
    def shown(self) -> str:
        """For people: `exit 0`, `SIGKILL`."""
        return f"exit {self.code}" if self.code >= 0 else signal.Signals(-self.code).name


class Life:
    """One start of the command."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self._began = time.monotonic()
        self._stopped = False
        self._late = False

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self.process.poll() is None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def stop(self, *, late: bool = False) -> None:
        """SIGKILL for all of it. `late`: because it took too long."""
        self._stopped, self._late = not late, late
        _kill(self.process.pid)

    def ended(self) -> Ended:
        """Wait for its end, and end what it left."""
        code = self.process.wait()
        seconds = self.seconds
        _kill(self.process.pid)
        return Ended(code, seconds, self._stopped, not self._late, last_words(self._log))


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has only zombies
        os.killpg(group, signal.SIGKILL)


HELD: Final = ("/bin/sh", "-c", 'read -r _ || exit 125; exec "$@" </dev/null', "sh")
"""Waits for a line, which an ended starter never writes, and becomes the command."""


def last_words(log: Path) -> tuple[str, ...]:
    """The end of an output, made visible."""
    if not log.exists():
        return ()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = file.read().decode("utf-8", "replace")
    return tuple(plain.visible(line) for line in text.splitlines() if line.strip())[-LAST_LINES:]


class Lives:
    """All processes of a rehearsing. As a context manager it leaves none behind. Safe to use from several threads."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._reaper: subprocess.Popen[bytes] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._reaper = subprocess.Popen(  # noqa: S603 - this Python, our own file
            [sys.executable, "-I", "-S", str(reaper.__file__)], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait(GONE_S)

    def close(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._closed = True
            running = tuple(self._running.values())
        for process in running:
            _kill(process.pid)
            process.wait(GONE_S)

    def start(self, words: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Life:
        """Start the command. Raises `CommandError` if it cannot be started, `KeyboardInterrupt` when all is to end."""
        with self._lock, log.open("ab") as output:
            if self._closed:
                raise KeyboardInterrupt
            process = _popen(words, environment, folder, output)
            self._running[process.pid] = process
            self._report(f"+{process.pid}")
            _let_go(process)
        return Life(process, log)

    def forget(self, life: Life) -> None:
        """It was waited for."""
        with self._lock:
            self._running.pop(life.process.pid, None)
            self._report(f"-{life.process.pid}")

    def _report(self, line: str) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            with suppress(BrokenPipeError):  # without it only a kill -9 of ours would leave a process
                self._reaper.stdin.write(line.encode() + b"\n")
                self._reaper.stdin.flush()


def _popen(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """The command's process, which does nothing until it is let go."""
    if not _is_there(words[0], environment, folder):
        raise CommandError(f"cannot start {plain.visible(words[0])}: No such file or directory", code="not_found")
    return subprocess.Popen(  # noqa: S603 - the author's own command
        [*HELD, *words], cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=output,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Whoever starts a process may be killed before the reaper knows of it; one that was not let go ends by itself."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.close()


def _is_there(program: str, environment: Mapping[str, str], folder: Path) -> bool:
    if os.sep in program:
        path = folder / program
        return path.is_file() and os.access(path, os.X_OK)
    return shutil.which(program, path=environment.get("PATH", os.defpath)) is not None
