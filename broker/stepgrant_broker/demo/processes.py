"""The demo's processes: started, watched, stopped and killed by their own pid, and none left behind.

Each runs in a session of its own, so that a Ctrl-C at the terminal reaches the demo alone and the demo decides. Output
is kept in memory and in a log file. A reaper outlives the demo for the case that it is killed itself, and none of them
does anything before the reaper knows it (`held`).
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, Self

from stepgrant_broker.demo.checks import Broken
from stepgrant_broker.demo.held import HELD, Reaper, let_go

POLL_S: Final = 0.02
GRACE_S: Final = 8.0
TOLD_ON_FAILURE: Final = 12
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Child:
    """One process of ours and what it has said so far."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    said: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    def listen(self) -> None:
        """Take down its output, in a thread, until it ends."""
        self._reader = threading.Thread(target=self._take_down, name=f"listen-{self.name}", daemon=True)
        self._reader.start()

    def _take_down(self) -> None:
        out: IO[str] | None = self.process.stdout
        if out is None:
            return
        with self.log.open("a", encoding="utf-8") as log:
            for line in out:
                self.said.append(line.rstrip("\n"))
                log.write(line)
                log.flush()

    @property
    def arguments(self) -> list[str]:
        """What it was started with, after the Python that runs it."""
        parts = self.process.args if isinstance(self.process.args, list) else []
        return [str(part) for part in parts[len(HELD) + 1 :]]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def line(self, beginning: str) -> str | None:
        """The first line that it said with this beginning."""
        return next((line for line in tuple(self.said) if line.startswith(beginning)), None)

    def wait_line(self, beginning: str, timeout_s: float) -> str:
        """The same, once it comes. Raises `Broken`."""

        def ended_silently() -> bool:
            return self.process.poll() is not None and not self._listening()

        wait_for(
            lambda: self.line(beginning) is not None or ended_silently(),
            timeout_s,
            lambda: f"{self.name} did not say {beginning!r}; {self.last_words()}",
        )
        line = self.line(beginning)
        if line is None:
            raise Broken(f"{self.name} ended ({self.process.returncode}) without {beginning!r}; {self.last_words()}")
        return line

    def wait_end(self, timeout_s: float) -> int:
        """Its exit code; a signal's number below zero. Raises `Broken`."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.name} did not end within {timeout_s:g} s; {self.last_words()}") from None
        if self._reader is not None:
            self._reader.join(timeout_s)
        return code

    def _listening(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def tell(self, line: str) -> None:
        """Write one line to its standard input. Raises `Broken`."""
        try:
            _write(self.process, line)
        except BrokenPipeError:
            raise Broken(f"{self.name} does not listen any more; {self.last_words()}") from None

    def kill(self) -> int:
        """SIGKILL, by its pid; the signal that it died of, below zero."""
        self.process.kill()
        return self.wait_end(GRACE_S)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of its output, for an error."""
        return "it said last: " + (" | ".join(self.said[-TOLD_ON_FAILURE:]) or "nothing")


class Interrupts:
    """Ctrl-C and its kin, which must not come between a process and our note of it, nor stop the cleaning up."""

    def __init__(self) -> None:
        self._held = False
        self._pending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal handler."""
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes in this block is raised at its end."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if self._pending and not self._held:
            self._pending = False
            raise KeyboardInterrupt

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals that end a program, in this block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in ENDINGS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Processes:
    """All processes of one demo. As a context manager it leaves none behind."""

    def __init__(self, logs: Path, interrupts: Interrupts | None = None) -> None:
        self._logs = logs
        self._interrupts = interrupts or Interrupts()
        self._children: list[Child] = []
        self._reaper: Reaper | None = None

    def __enter__(self) -> Self:
        self._reaper = Reaper()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._interrupts.held():
            self._ask(self._children, signal.SIGKILL)
            for child in tuple(self._children):
                self._forget(child)
            if self._reaper is not None:
                self._reaper.close()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a process; what it says goes to its log as well."""
        with self._interrupts.held():
            process = subprocess.Popen(  # noqa: S603 - the demo's own modules and commands
                [*HELD, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=dict(environment),
                start_new_session=True,
            )
            child = Child(name, process, self._logs / f"{name}.log")
            self._children.append(child)
            self._tell_reaper(Reaper.started, process.pid)
            let_go(process)
            child.listen()
        return child

    def end(self, children: Sequence[Child]) -> list[int]:
        """Ask them to end, all at once, and wait; kill who does not. Their exit codes."""
        self._ask(children, signal.SIGTERM)
        for child in children:
            try:
                child.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
        return [self._forget(child) for child in children]

    @staticmethod
    def _ask(children: Sequence[Child], number: signal.Signals) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(number)

    def _forget(self, child: Child) -> int:
        code = child.wait_end(GRACE_S)
        self._tell_reaper(Reaper.waited, child.pid)
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                pipe.close()
        if child in self._children:
            self._children.remove(child)
        return code

    def _tell_reaper(self, what: Callable[[Reaper, int], None], pid: int) -> None:
        """Raises `Broken` if it is gone: without it kill -9 of the demo would leave processes."""
        if self._reaper is None:
            return
        try:
            what(self._reaper, pid)
        except BrokenPipeError:
            self._reaper = None
            raise Broken("the reaper is gone") from None


def _write(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def wait_for(condition: Callable[[], bool], timeout_s: float, otherwise: Callable[[], str]) -> None:
    """Raises `Broken` with `otherwise()` unless the condition comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Broken(f"{otherwise()} (waited {timeout_s:g} s)")
        time.sleep(POLL_S)
