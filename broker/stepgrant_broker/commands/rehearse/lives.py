"""The agent's processes: one life after the other, each in a process group of its own, and none left behind.

Rules:
* A life's whole group is killed once its first process has ended: what an agent starts and forgets is no part of the
  next life. Nobody else's process is ever signalled.
* Output goes to a file, whatever bytes it is; it is read for last words only, and shown as visible text.
* A reaper outlives this process for the case that it is killed itself, and a life begins once the reaper knows it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.demo.held import HELD, Reaper, let_go

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
        self._reaper: Reaper | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._reaper = Reaper()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._reaper is not None:
            self._reaper.close()

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
            self._tell_reaper(Reaper.started, process.pid)
            let_go(process)
            if process.stdin is not None:
                process.stdin.close()
        return Life(process, log)

    def forget(self, life: Life) -> None:
        """It was waited for."""
        with self._lock:
            self._running.pop(life.process.pid, None)
            self._tell_reaper(Reaper.waited, life.process.pid)

    def _tell_reaper(self, what: Callable[[Reaper, int], None], pid: int) -> None:
        if self._reaper is not None:
            with suppress(BrokenPipeError):  # without it only a kill -9 of ours would leave a process
                what(self._reaper, pid)


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


def _is_there(program: str, environment: Mapping[str, str], folder: Path) -> bool:
    if os.sep in program:
        path = folder / program
        return path.is_file() and os.access(path, os.X_OK)
    return shutil.which(program, path=environment.get("PATH", os.defpath)) is not None
