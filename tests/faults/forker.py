"""Programs as new processes, forked from this one, which has imported already what they import: most of a life.

Standard input is a Unix socket. For each order, a byte that carries descriptors and then a line of JSON
`{"program", "words", "environment", "numbers", "folder"}`, it forks a child that runs the file as `python PROGRAM
WORDS...` does: in this folder, with these words, this environment, what Python and the SDK take from it at their start
(PYTHONUNBUFFERED, TMPDIR, failpoints), and the given descriptors under these numbers and no others. It answers with the
child's process id. The last descriptor is its own: there it says `stopped` when the child was stopped, and the child's
exit code when that has ended.

A child shares nothing with another one. This process has no threads, opens nothing and reads no setting; random
numbers are seeded anew in each child, and a key of the SDK would not survive the fork. The end of the socket ends it.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any, Final, NoReturn

from stepgrant import _failpoints

SDK: Final = (
    "stepgrant._agent", "stepgrant._csr", "stepgrant._outcomes", "stepgrant._prepare", "stepgrant._reconcile",
    "stepgrant._run", "stepgrant._spec", "stepgrant._step", "stepgrant._timeouts", "stepgrant._tool",
    "stepgrant._http1", "stepgrant.credential", "stepgrant.errors", "stepgrant.http", "stepgrant.verify",
)  # fmt: skip
BROKER: Final = (
    "stepgrant_broker.wiring", "stepgrant_broker.wiring.server", "stepgrant_broker.wiring.vault",
    "stepgrant_broker.api.app", "stepgrant_broker.store.sqlite", "stepgrant_broker.store.postgres",
)  # fmt: skip
LIBRARIES: Final = (
    "asyncio", "http.server", "uuid", "httpx", "httpcore", "anyio", "anyio._backends._asyncio", "certifi", "h11",
    "psycopg", "pytest", "encodings.idna", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on",
)  # fmt: skip
COMMANDS: Final = (
    "alembic.command", "alembic.runtime.migration", "uvloop", "stepgrant.cli.client_file", "stepgrant.cli.running",
    "stepgrant_broker.commands.child", "stepgrant_broker.commands.dev_session", "stepgrant_broker.commands.verifying",
    "stepgrant_broker.commands.rehearse.session", "stepgrant_broker.commands.rehearse.showing",
    "stepgrant_broker.testing", "stepgrant_broker.wiring.bootstrap",
)  # fmt: skip
PROGRAMS: Final = ("agents", "stepgrant.cli.cmd_work", "stepgrant._worker")
HIGH: Final = 200
"""From here on a child keeps what it was given, until it has closed everything else."""
MOST: Final = 32


def load(*names: str) -> None:
    """Import these, also what others would import only when they need it."""
    for name in names:
        importlib.import_module(name)


def life(order: dict[str, Any], given: list[int]) -> NoReturn:
    """A child, from its birth to its end."""
    code = 1
    try:
        settle_in(order, given)
        code = run(order["program"], order["words"])
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def settle_in(order: dict[str, Any], given: list[int]) -> None:
    """Nothing is left of the parent but what was imported."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kept = [fcntl.fcntl(one, fcntl.F_DUPFD, HIGH) for one in given]
    os.closerange(0, HIGH)
    for number, one in zip(order["numbers"], kept, strict=True):
        os.dup2(one, number)
    os.closerange(HIGH, HIGH + MOST)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    tempfile.tempdir = None
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout, sys.stderr = unbuffered(1), unbuffered(2)
    _failpoints.on = _failpoints._from_environment()


def unbuffered(number: int) -> io.TextIOWrapper:
    """A standard output that keeps nothing back."""
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)


def run(program: str, words: list[str]) -> int:
    """Run the file as the main program; its exit code."""
    sys.argv = [program, *words]
    sys.modules["__main__"] = module = ModuleType("__main__")
    module.__file__ = program
    code: object = None
    try:
        SourceFileLoader("__main__", program).exec_module(module)
    except SystemExit as end:
        code = end.code
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    if code is None or isinstance(code, int):
        return int(code or 0)
    sys.stderr.write(f"{code}\n")
    return 1


def ordered(orders: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next order with its descriptors; nothing at the end."""
    byte, given, _, _ = socket.recv_fds(orders, 1, MOST)
    text = b""
    while byte and not text.endswith(b"\n"):
        more = orders.recv(1 << 16)
        if not more:
            return None
        text += more
    return (json.loads(text), given) if byte else None


def reap(running: dict[int, int]) -> None:
    """Tell what became of children."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        stopped = os.WIFSTOPPED(status)
        with suppress(BrokenPipeError):  # nobody asks for it any more
            os.write(running[pid], b"stopped\n" if stopped else b"%d\n" % os.waitstatus_to_exitcode(status))
        if not stopped:
            os.close(running.pop(pid))


def main() -> None:
    """Fork a child for each order."""
    load(*LIBRARIES, *SDK, *BROKER, *COMMANDS)
    gc.collect()
    gc.freeze()
    waking, woken = socket.socketpair()
    os.set_blocking(woken.fileno(), False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    with socket.socket(fileno=0) as orders:
        while True:
            ready, _, _ = select.select([orders, waking], [], [])
            if waking in ready:
                waking.recv(1 << 12)
                reap(running)
            if orders not in ready:
                continue
            order = ordered(orders)
            if order is None:
                return
            what, (*given, told) = order
            pid = os.fork()
            if pid == 0:
                life(what, given)
            running[pid] = told
            for one in given:
                os.close(one)
            orders.sendall(b"%d\n" % pid)


if __name__ == "__main__":
    main()
