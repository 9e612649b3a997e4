"""The program of the engine's own process: one compiled policy that answers queries in turn.

Rules:
* It is started by path and without `site`, and imports only what it needs, so that a lost engine is replaced in a
  moment: `typing` and `contextlib` alone would take half as long as all else. It knows nothing of the broker: no
  environment, no files, no sockets but the one to its parent.
* Everything is a frame: four bytes of length (big-endian), then that many bytes. First come the number of modules, path
  and text of each, and the data; the answer is `READY` or `FAILED`. After that each frame is an input, and each answer
  starts with one of the letters below.
* A query that takes longer than the limit ends the process by SIGALRM, whose default action no library can hold up: a
  parent that died cannot leave a query running for ever. So do more memory than the limit and a panic within a panic.
* After a panic the engine is compiled anew, because a panicked one is in no known state.
* The end of the socket is the end of the process. Ctrl-C is the parent's business.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

READY: Final = b"R"
FAILED: Final = b"F"
VALUE: Final = b"V"
UNDEFINED: Final = b"U"
ERROR: Final = b"E"
PANIC: Final = b"P"
TOO_LARGE: Final = b"L"

DECISION: Final = "data.stepgrant.decision"
NO_VALUE: Final = '"<undefined>"'
MAX_VALUE: Final = 65_536
MAX_ERROR: Final = 4_096
LENGTH: Final = 4
CHUNK: Final = 65_536


class ParentGone(Exception):
    """The socket is at its end."""


class Pipe:
    """Frames over a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = b""

    def read(self) -> bytes:
        """The next frame. Raises `ParentGone`."""
        data = self._left or self._more()
        while len(data) < LENGTH:
            data += self._more()
        end = LENGTH + int.from_bytes(data[:LENGTH], "big")
        if len(data) < end:
            data = self._whole(data, end)
        self._left = data[end:]
        return data[LENGTH:end]

    def write(self, kind: bytes, body: bytes = b"") -> None:
        """Send one answer."""
        frame = memoryview((len(body) + 1).to_bytes(LENGTH, "big") + kind + body)
        while frame:
            frame = frame[os.write(self._fd, frame) :]

    def _whole(self, data: bytes, end: int) -> bytes:
        parts, size = [data], len(data)
        while size < end:
            parts.append(self._more())
            size += len(parts[-1])
        return b"".join(parts)

    def _more(self) -> bytes:
        # As much as is there: a query comes in one piece, so it costs one call.
        chunk = os.read(self._fd, CHUNK)
        if not chunk:
            raise ParentGone
        return chunk


class Policy:
    """The modules and data as they came, and the engine made of them."""

    def __init__(self, modules: list[tuple[str, str]], data: str) -> None:
        self._modules = modules
        self._data = data
        self.engine: Any = None

    def compile(self) -> None:
        """Make the engine, and let it plan its rules on an input that says nothing."""
        import regorus  # noqa: PLC0415  (after the limits are set)

        self.engine = regorus.Engine()
        self.engine.set_gather_prints(True)
        for path, text in self._modules:
            self.engine.add_policy(path, text)
        self.engine.add_data_json(self._data)
        self.engine.set_input_json("{}")
        self.engine.eval_rule_as_json(DECISION)

    def answer(self, policy_input: bytes) -> tuple[bytes, bytes]:
        """The letter and the body of the answer to one input."""
        try:
            self.engine.set_input_json(policy_input.decode())
            value: str = self.engine.eval_rule_as_json(DECISION)
        except Exception as error:  # noqa: BLE001  (the library raises RuntimeError, the input may be no UTF-8)
            return ERROR, told(error)
        except BaseException as panic:  # noqa: BLE001  (pyo3's PanicException)
            self.engine = None
            return PANIC, told(panic)
        if value == NO_VALUE:
            return UNDEFINED, b""
        body = value.encode()
        return (VALUE, body) if len(body) <= MAX_VALUE else (TOO_LARGE, b"")


def told(error: BaseException) -> bytes:
    """An error as bytes. The parent decides what of it may be shown."""
    return str(error).partition("Stack backtrace:")[0].encode("utf-8", "replace")[:MAX_ERROR]


def limit(memory: int) -> None:
    """No core dumps, and no more memory than this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # macOS has the name but not the limit; there only the deadline bounds what a query takes.
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    except (OSError, ValueError):
        return


def serve(pipe: Pipe, seconds: float) -> None:
    """Read the policy, then answer until the parent is gone."""
    modules = [(pipe.read().decode(), pipe.read().decode()) for _ in range(int.from_bytes(pipe.read(), "big"))]
    policy = Policy(modules, pipe.read().decode())
    try:
        policy.compile()
    except BaseException as error:  # noqa: BLE001  (a panic is no Exception)
        pipe.write(FAILED, told(error))
        return
    pipe.write(READY)
    while True:
        policy_input = pipe.read()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        kind, body = policy.answer(policy_input)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.write(kind, body)
        if kind == PANIC:
            policy.compile()


def main(arguments: list[str]) -> int:
    """`fd memory seconds path…`: the socket, the limits, and where the engine's library is."""
    fd, memory, seconds, *paths = arguments
    sys.path.extend(paths)
    limit(int(memory))
    try:
        serve(Pipe(int(fd)), float(seconds))
    except (ParentGone, OSError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
