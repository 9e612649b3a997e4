"""Programs of these tests as processes of their own. Inside `with forking():` they are forked by `forker.py`.

    with started(FOLDER / "agent.py", "blocking", "run-1", environment=environment(), stdout=file) as agent:
        agent.wait(30)

Elsewhere, and with a preloaded library, which only a new program has, `subprocess` starts them. A test sees no
difference but the time that it takes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

FOLDER: Final = Path(__file__).parent
ENDS_S: Final = 30.0
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. For plain HTTP: to load whom one trusts takes longer than a call."""


def environment(**more: str) -> dict[str, str]:
    """Of a child: nothing of the developer's settings, and the code under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(name for name in sys.path if name), **more}


class Process(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    pid: int
    returncode: Any

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...

    def terminate(self) -> None: ...


@dataclass
class Forked:
    """A process that the forker forked, and what it says of it. Threads may share it."""

    pid: int
    told: int
    returncode: int | None = None
    stops: int = 0
    _heard: bytes = b""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __del__(self) -> None:
        os.close(self.told)

    def hear(self, timeout: float | None) -> bool:
        """Take in what is said next; False when nothing is in time. Raises `RuntimeError` when the forker is gone."""
        if not select.select([self.told], [], [], timeout)[0]:
            return False
        with self._lock:
            if self.returncode is not None:
                return True
            try:
                said = os.read(self.told, 1 << 12)
            except BlockingIOError:  # another thread has it
                return True
            if not said:
                raise RuntimeError("the forker is gone")
            *lines, self._heard = (self._heard + said).split(b"\n")
            self.stops += lines.count(b"stopped")
            self.returncode = next((int(line) for line in lines if line != b"stopped"), None)
            return True

    def poll(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""
        while self.returncode is None and self.hear(0):
            continue
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; its exit code. Raises `subprocess.TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if not self.hear(None if end is None else max(0.0, end - time.monotonic())):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def freeze(process: Process) -> None:
    """SIGSTOP; it stands still when this returns."""
    if not isinstance(process, Forked):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        return
    before = process.stops
    process.send_signal(signal.SIGSTOP)
    while process.returncode is None and process.stops == before:
        process.hear(None)


class Forker:
    """A running `forker.py`."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, str(FOLDER / "forker.py")]
            self._process = subprocess.Popen(command, env=environment(), stdin=theirs.fileno())
        self._lock = threading.Lock()

    def fork(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> Forked:
        """A child. Raises `RuntimeError` when the forker is gone."""
        told, telling = os.pipe()
        os.set_blocking(told, False)
        try:
            with self._lock:
                socket.send_fds(self._orders, [b"+"], [*descriptors, telling])
                self._orders.sendall(json.dumps(order).encode() + b"\n")
                answer = self._orders.recv(1 << 6)
        finally:
            os.close(telling)
        if not answer:
            os.close(told)
            raise RuntimeError("the forker is gone")
        return Forked(int(answer), told)

    def end(self) -> None:
        """It ends; what it forked goes on."""
        self._orders.close()
        self._process.wait(ENDS_S)


class _Shared:
    """The one forker of this process: there while somebody is inside `forking()`, started when first needed."""

    def __init__(self) -> None:
        self.wanted = 0
        self.forker: Forker | None = None
        self.lock = threading.Lock()

    def get(self) -> Forker | None:
        with self.lock:
            if self.forker is None and self.wanted:
                self.forker = Forker()
            return self.forker


_shared: Final = _Shared()


@contextmanager
def forking() -> Iterator[None]:
    """Processes are forked while the block runs."""
    with _shared.lock:
        _shared.wanted += 1
    try:
        yield
    finally:
        with _shared.lock:
            _shared.wanted -= 1
            over = _shared.forker if not _shared.wanted else None
            if over is not None:
                _shared.forker = None
                over.end()


def spawned(
    program: Path,
    *words: str,
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    more: Sequence[int] = (),
    folder: Path | None = None,
) -> Process:
    """Run this file in a new process. Descriptors: its standard ones, else ours, and `more` that keep their numbers.

    `folder`: where it works, else where this process does.
    """
    forker = None if "LD_PRELOAD" in environment else _shared.get()
    if forker is None:
        command = [sys.executable, str(program), *words]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=more
        )
    with Path(os.devnull).open("rb") as nothing:
        first = nothing.fileno() if stdin == subprocess.DEVNULL else stdin
        given = {0: first, 1: 1 if stdout is None else stdout, 2: 2 if stderr is None else stderr}
        given |= {number: number for number in more}
        order = {"program": str(program), "words": words, "environment": dict(environment), "numbers": list(given),
                 "folder": str(folder or Path.cwd())}  # fmt: skip
        return forker.fork(order, list(given.values()))


@dataclass
class Talk:
    """A process, what it hears and what it says."""

    process: Process
    stdin: IO[str]
    stdout: IO[str]

    def close(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


def talking(program: Path, *words: str, environment: Mapping[str, str]) -> Talk:
    """Run this file in a new process, with pipes for its input and output."""
    hears, stdin = os.pipe()
    stdout, says = os.pipe()
    try:
        process = spawned(program, *words, environment=environment, stdin=hears, stdout=says)
    finally:
        os.close(hears)
        os.close(says)
    return Talk(process, os.fdopen(stdin, "w"), os.fdopen(stdout))


def lived(
    program: Path,
    *words: str,
    environment: Mapping[str, str],
    patience_s: float,
    born: Callable[[Process], object] = id,
    folder: Path | None = None,
) -> tuple[int, str, str]:
    """Run this file to its end: exit code, output, errors. `born` is told the process.

    It is killed when it does not end in time, and the errors say so.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = spawned(
            program, *words, environment=environment, stdout=out.fileno(), stderr=errors.fileno(), folder=folder
        )  # fmt: skip
        born(process)
        late = ""
        try:
            code = process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code, late = process.wait(), f"\n(it did not end within {patience_s} s)"
        out.seek(0)
        errors.seek(0)
        return code, out.read().decode(), errors.read().decode(errors="replace") + late
