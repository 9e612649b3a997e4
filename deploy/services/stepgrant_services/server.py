"""What the three servers have in common: a port, a folder, a log, a start that waits for health, an end by process id.

- A server listens on 127.0.0.1 only. Its port is free and outside the range from which the kernel takes ports for
  outgoing connections: else, while a server is down, a client that tries again and again could get the server's own
  port and keep it. If another process takes the port first, a first start takes the next one; a restart keeps its port.
- "Healthy" means that the process which we started owns the listening socket *and* answers; another server on that port
  is never taken for ours.
- A bound server (the default) dies with this process, see `keeper.py`. A detached one outlives it (`up`).
- Its environment holds only what it needs, so no setting of the developer (`VAULT_ADDR`, `PGHOST`) changes it.
- An error holds the end of the log, with the server's secrets taken out.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from stepgrant_services.binaries import find
from stepgrant_services.errors import ServiceError
from stepgrant_services.keeper import spawn
from stepgrant_services.processes import free_port, owns, running, started_at

KEEPER: Final = Path(__file__).with_name("keeper.py")
HEALTH_S: Final = 60.0
GRACE_S: Final = 20.0
GLANCE_S: Final = 0.02
PORTS_TRIED: Final = 8
LOG_TAIL: Final = 2500
# A name of the environment that servers inherit: the tests look for processes that carry it when all should be gone.
MARK: Final = "TESTS_OF_STEPGRANT"
INHERITED: Final = ("PATH", "LANG", "TMPDIR", "TZ", MARK)
LIVE: "Final[set[Server]]" = set()


class Server(ABC):
    """One server process, which can be stopped and started again over the same data. Use as a context manager.

    `folder` (which must exist) is given for a detached server, and one that already runs there is taken over; a bound
    server makes its own folder. `close` removes it.
    """

    name: ClassVar[str]
    end_signal: ClassVar[int] = signal.SIGTERM
    abandon_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, binary: Path | None, *, folder: Path | None = None) -> None:
        self._binary = binary
        self.detached = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"stepgrant-{self.name}-"))
        self.log = self.folder / "log"
        self.port = 0
        self.pid = 0
        self._started = ""
        self._child: subprocess.Popen[bytes] | None = None  # the keeper, or a detached server itself
        self._secrets: list[str] = []
        if self._state.exists():
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if running(state["pid"], state["started"]):
                self.port, self.pid, self._started = state["port"], state["pid"], state["started"]

    # --- what each service says --------------------------------------------------------------------------------------

    @abstractmethod
    def _command(self) -> list[str]:
        """The command that listens on `self.port`; no secret in it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves now. May raise OSError, which means no."""

    def _settings(self) -> Mapping[str, str]:
        """More environment for the command."""
        return {}

    def _prepare(self) -> None:  # noqa: B027  (most have nothing to prepare)
        """Make what has to be there before the first start."""

    def _recovers(self, tail: str) -> bool:
        """Whether a start that ended with this log may succeed a moment later."""
        return False

    def _user(self) -> tuple[int, int] | None:
        """User and group id to run as, if not this process's."""
        return None

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, deadline_s: float = HEALTH_S) -> Self:
        """Start it and wait until it is healthy. A first start picks the port.

        Raises:
            ServiceError: it ended, or was not healthy after `deadline_s` seconds.
        """
        if self.alive:
            return self
        end = time.monotonic() + deadline_s
        first = self.port == 0
        if first:
            self._prepare()
        for tried in range(1, PORTS_TRIED + 1):
            if first:
                self.port = free_port()
            LIVE.add(self)
            self._launch()
            if self._wait(end):
                return self
            tail = self.tail()
            taken = "address already in use" in tail.lower()
            if not (taken or self._recovers(tail)) or tried == PORTS_TRIED:
                break
            time.sleep(0.0 if first else 0.25)
        raise ServiceError(f"{self.name} ended while starting; the end of its log:\n{self.tail()}")

    def stop(self, number: int | None = None, grace_s: float = GRACE_S) -> None:
        """End it (default: its own orderly signal), after `grace_s` seconds by SIGKILL, and wait until it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number or self.end_signal)
                os.kill(self.pid, signal.SIGCONT)
            if not self._gone(grace_s):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                if not self._gone(grace_s):
                    raise ServiceError(f"{self.name} (process {self.pid}) cannot be ended")
        self._forget()

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.stop(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop it in an orderly way and start it again: same port, same data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections are accepted by the kernel, nothing is answered. `resume` goes on."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its folder. May be called again."""
        self.stop()
        LIVE.discard(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def binary(self) -> Path:
        """Its program; looked for when it is first needed.

        Raises:
            ServiceMissing: there is none.
        """
        if self._binary is None:
            self._binary = find(self.name).path
        return self._binary

    @property
    def alive(self) -> bool:
        """Whether its process runs (frozen or not)."""
        if self._child is not None:
            return self._child.poll() is None
        return running(self.pid, self._started)

    @property
    def host_port(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def tail(self) -> str:
        """The end of its log, without its secrets."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text[-LOG_TAIL:]

    # --- inside ----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> Path:
        """Where a detached server is written down for the next `up`, `down` or `status`."""
        return self.folder / "process.json"

    def _launch(self) -> None:
        self.log.touch(mode=0o600)
        os.truncate(self.log, 0)  # what an earlier start has said must not explain this one
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        spec = {
            "command": self._command(),
            "env": {**kept, "HOME": str(self.folder), **self._settings()},
            "log": str(self.log),
            "user": self._user(),
            "signal": int(self.abandon_signal),
            "grace_s": GRACE_S,
            "remove": str(self.folder),
        }
        if self.detached:
            self._child = spawn(spec, kept=False)
            self.pid = self._child.pid
        else:
            self._child, self.pid = self._kept(spec)
        self._started = started_at(self.pid)
        if self.detached:
            state = {"pid": self.pid, "started": self._started, "port": self.port}
            self._state.write_text(json.dumps(state), encoding="utf-8")

    def _kept(self, spec: dict[str, Any]) -> "tuple[subprocess.Popen[bytes], int]":
        """A keeper, and the process id of its server."""
        with self.log.open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end their servers after their last use
            )
        if keeper.stdin is None or keeper.stdout is None:
            raise ServiceError("the keeper has no pipes")
        keeper.stdin.write(json.dumps(spec).encode() + b"\n")
        keeper.stdin.flush()
        return keeper, int(keeper.stdout.readline() or 0)

    def _wait(self, end: float) -> bool:
        """Whether it became healthy (True) or ended (False)."""
        while self.alive:
            with contextlib.suppress(OSError):
                if owns(self.pid, self.port) and self._answers():
                    return True
            if time.monotonic() > end:
                tail = self.tail()
                self.kill()
                raise ServiceError(f"{self.name} was not healthy in time; the end of its log:\n{tail}")
            time.sleep(GLANCE_S)
        self._forget()
        return False

    def _gone(self, patience_s: float) -> bool:
        end = time.monotonic() + patience_s
        while self.alive and time.monotonic() < end:
            time.sleep(GLANCE_S / 4)
        return not self.alive

    def _forget(self) -> None:
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child.wait()
        self._child, self.pid, self._started = None, 0, ""
        self._state.unlink(missing_ok=True)
