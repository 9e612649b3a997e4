"""Starting, asking and ending the engine's own process (`engine_child`), from the broker's side.

Rules:
* The engine holds Python's interpreter lock for as long as a query takes (measured), so in this process a query without
  end would stop everything, whatever should end it included. A process can be ended.
* It is started with no environment and no inherited files, so that nothing of the broker can leak into it or out of it.
* What it says of an error may quote the input; only the place in the policy is passed on.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import regorus

from stepgrant import canonical
from stepgrant_broker.policy import engine_child
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.rego import trimmed

START_S: Final = 10.0
"""How long it may take to start and to compile."""
QUERY_S: Final = 2.0
"""How long a query may run when nobody watches it (see `engine_child`)."""
MEMORY_BYTES: Final = 1 << 30
LENGTH: Final = engine_child.LENGTH
LONGEST: Final = LENGTH + engine_child.MAX_VALUE + 1
"""The longest frame of an answer: a letter and a value."""
_CHUNK: Final = 65_536
_PROGRAM: Final = engine_child.__file__
_LIBRARY: Final = str(Path(regorus.__file__).parents[1])


class EngineFailed(Exception):
    """The process did not become ready: `str()` says why."""


class Answer(msgspec.Struct, frozen=True):
    """What came of a query: `raw`, or an `error` that quotes nothing of the input."""

    revision: str
    raw: bytes | None = None
    error: str | None = None


def frame(body: bytes) -> bytes:
    """One frame of the child's protocol."""
    return len(body).to_bytes(LENGTH, "big") + body


def unframed(buffer: bytearray) -> list[bytes]:
    """Take every whole frame out of the buffer. Raises `ValueError` for a length that no answer has."""
    found: list[bytes] = []
    while len(buffer) >= LENGTH:
        end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
        if not LENGTH < end <= LONGEST:
            raise ValueError("no answer is that long")
        if len(buffer) < end:
            break
        found.append(bytes(buffer[LENGTH:end]))
        del buffer[:end]
    return found


def read_answer(body: bytes, revision: str) -> Answer:
    """The answer in one frame of the child."""
    kind, rest = body[:1], body[1:]
    if kind == engine_child.VALUE:
        return Answer(revision, raw=rest)
    if kind == engine_child.UNDEFINED:
        return Answer(revision)
    if kind == engine_child.TOO_LARGE:
        return Answer(revision, error=f"the policy answered with more than {engine_child.MAX_VALUE} bytes")
    word = "panicked" if kind == engine_child.PANIC else "failed"
    return Answer(revision, error=f"the policy engine {word} at {trimmed(rest.decode('utf-8', 'replace')).place}")


class EngineProcess:
    """One process with one compiled policy, ready to be asked. Not thread-safe."""

    def __init__(self, bundle: Bundle, revision: str, *, memory: int = MEMORY_BYTES, query_s: float = QUERY_S) -> None:
        """Start and compile; blocks. Raises `EngineFailed`."""
        self.bundle = bundle
        self.revision = revision
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-S", _PROGRAM, str(theirs.fileno()), str(memory), str(query_s), _LIBRARY]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and program)
                    command,
                    env={},
                    cwd="/",
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    # A panic, and `print` in a policy, would write arguments of actions there.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except OSError as error:
            self.socket.close()
            raise EngineFailed(f"the policy engine cannot be started: {error.strerror}") from None
        try:
            self.socket.sendall(_policy(bundle))
            self._become_ready(self._receive(START_S))
        except (OSError, EngineFailed) as error:
            self.end()
            raise EngineFailed(str(error) or "the policy engine did not start") from None

    def ask(self, policy_input: bytes, *, seconds: float) -> Answer:
        """One query; blocks. After an answer that says it took too long, or that the process ended, call `end`."""
        try:
            self.socket.sendall(frame(policy_input))
            return read_answer(self._receive(seconds), self.revision)
        except TimeoutError:
            return Answer(self.revision, error=f"no decision within {seconds} s")
        except (OSError, EngineFailed):
            return Answer(self.revision, error="the policy engine ended while deciding")

    def kill(self) -> None:
        """End the process at once, without waiting for it."""
        self._process.kill()

    def end(self) -> None:
        """End the process and take leave of it; blocks for a moment. May be called again."""
        self._process.kill()
        self._process.wait()
        self.socket.close()

    def _become_ready(self, body: bytes) -> None:
        if body[:1] != engine_child.READY:
            error = trimmed(body[1:].decode("utf-8", "replace"))
            raise EngineFailed(f"{error.place}: {error.message}")

    def _receive(self, seconds: float) -> bytes:
        """The next frame. Raises `TimeoutError`, `EngineFailed`."""
        self.socket.settimeout(seconds)
        buffer = bytearray()
        while True:
            chunk = self.socket.recv(_CHUNK)
            if not chunk:
                raise EngineFailed("the policy engine ended; the policy may need too much time or memory")
            buffer += chunk
            for body in unframed(buffer):
                return body


def _policy(bundle: Bundle) -> bytes:
    parts = [len(bundle.modules).to_bytes(engine_child.LENGTH, "big")]
    for path, text in bundle.modules.items():
        parts += [path.encode(), text.encode()]
    parts.append(canonical.dumps(bundle.data))
    return b"".join(frame(part) for part in parts)
