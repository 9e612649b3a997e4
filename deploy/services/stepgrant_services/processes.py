"""Processes and ports of this machine, as the kernel tells about them.

A process id alone names nobody: it is given again to another process. A process is known by its id and its start.
"""

import contextlib
import os
import random
import socket
import subprocess
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PORTS: Final = range(15_000, 32_000)
PORTS_LOOKED_AT: Final = 200
LISTENING: Final = "0A"


def started_at(pid: int) -> str:
    """When process `pid` was started, in words that only have to be compared; "" if there is none, or only a zombie."""
    if PROC.joinpath("self", "stat").exists():
        with contextlib.suppress(OSError):
            # The program's name, in parentheses, may hold anything; what follows the last one is numbers.
            state, *rest = PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            return "" if state in {"Z", "X"} else rest[18]
        return ""
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607  (where it lies differs)
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def running(pid: int, started: str) -> bool:
    """Whether the process that was given `pid` at `started` still runs."""
    return pid > 0 and started != "" and started_at(pid) == started


def owns(pid: int, port: int) -> bool:
    """Whether `pid` itself listens on 127.0.0.1:`port`; without /proc, whether anybody does."""
    table = PROC / "net" / "tcp"
    if not table.exists():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1] == wanted and line[3] == LISTENING}
    with contextlib.suppress(OSError):
        for handle in PROC.joinpath(str(pid), "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(handle.readlink()) in sockets:
                    return True
    return False


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that the kernel gives to no outgoing connection.

    Raises:
        OSError: none was found.
    """
    lowest, highest = _outgoing()
    ports = [port for port in PORTS if not lowest <= port <= highest] or list(PORTS)
    for port in random.sample(ports, min(PORTS_LOOKED_AT, len(ports))):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port on 127.0.0.1")


def _outgoing() -> tuple[int, int]:
    setting = PROC / "sys" / "net" / "ipv4" / "ip_local_port_range"
    if not setting.exists():
        return 49_152, 65_535
    lowest, highest = setting.read_text(encoding="ascii").split()
    return int(lowest), int(highest)


def marked(name: str, value: str) -> list[tuple[int, str]]:
    """The id and command line of each process, other than this one, that began with `name`=`value` (Linux only)."""
    found = []
    for folder in PROC.glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):
            started_with = (folder / "environ").read_bytes().split(b"\0")
            if pid != os.getpid() and f"{name}={value}".encode() in started_with and started_at(pid):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append((pid, command.decode("utf-8", "replace").strip()[:200]))
    return sorted(found)
