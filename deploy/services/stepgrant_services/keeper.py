"""A process between a test and its server: when the test's process dies, however it dies, the server dies too.

Run as `python -I -S keeper.py`, it reads what to do from stdin (one line of JSON, see `main`; not from an argument,
which everybody on the machine can read). It starts the server, prints its process id, and ends when the server has
ended. It ends the server and removes its folder when its own stdin is closed or its parent is gone, which is what a
killed parent leaves. If the keeper itself is killed, the kernel kills the server (Linux). `PR_SET_PDEATHSIG` alone
would not do: it fires when the *thread* that started the child ends, and it exists on Linux only.

It imports nothing of the package, so that it starts in a few milliseconds, and has one thread.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
GLANCE_S: Final = 1.0


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent's thread ends. Runs in the child, before its exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def as_user(user: "list[int] | tuple[int, int] | None") -> dict[str, Any]:
    """The arguments of `subprocess.run` for a process of another user (user and group id), or of this one (None)."""
    return {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}


def spawn(spec: dict[str, Any], *, kept: bool) -> "subprocess.Popen[bytes]":
    """The server of `spec`: `command`, `env`, `log` (a path, appended to), `user` (see `as_user`).

    It dies with this process if it is `kept`, else it is a session of its own.
    """
    with open(spec["log"], "ab") as log:  # noqa: PTH123  (pathlib costs as much to import as all the rest)
        return subprocess.Popen(
            spec["command"],
            env=spec["env"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=not kept,
            preexec_fn=die_with_parent if kept else None,  # noqa: PLW1509  (a keeper has one thread)
            **as_user(spec["user"]),
        )


def end(server: "subprocess.Popen[bytes]", spec: dict[str, Any]) -> None:
    """End the server: `signal`, after `grace_s` seconds SIGKILL; then remove `remove`."""
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(spec["signal"])
        server.send_signal(signal.SIGCONT)
    try:
        server.wait(spec["grace_s"])
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(spec["remove"], ignore_errors=True)


def main(spec: dict[str, Any]) -> int:
    """Start the server of `spec` (as `spawn`; and as `end`), keep it, end it. 0, or 1 if it did not end well."""
    parent = os.getppid()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(tell)
    server = spawn(spec, kept=True)
    print(server.pid, flush=True)  # noqa: T201  (the parent reads it)
    while server.poll() is None:
        ready, _, _ = select.select([0, told], [], [], GLANCE_S)
        if 0 in ready or os.getppid() != parent:
            end(server, spec)
        elif told in ready:
            os.read(told, 64)
    return 0 if server.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.stdin.readline())))
