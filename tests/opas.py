"""A real OPA for one test: its own process on a port or socket of its own, with the bundle that the broker would build.

It can be stopped, killed, frozen and started again at the same place. Whoever starts one ends it (`close`).
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.opa_bundle import opa_bundle

READY_S = 10.0


def opa_binary() -> str:
    """The OPA to test with."""
    found = shutil.which("opa")
    assert found is not None, "OPA is not on the PATH"
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Opa:
    """One OPA server. `url` is where it answers, also after `start` follows `stop`."""

    def __init__(self, folder: Path, *options: str, bundle: bytes | Bundle | None = None, unix: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "bundle.tar.gz"
        self.options = list(options)
        self.port = free_port()
        self.socket = folder / "opa.sock"
        self.url = f"unix://{self.socket}" if unix else f"http://127.0.0.1:{self.port}"
        self._unix = unix
        self._process: subprocess.Popen[bytes] | None = None
        if bundle is not None:
            self.put(bundle)

    def put(self, bundle: bytes | Bundle) -> None:
        """The bundle for the next `start`."""
        self.file.write_bytes(opa_bundle(bundle) if isinstance(bundle, Bundle) else bundle)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        address = f"unix://{self.socket}" if self._unix else f"127.0.0.1:{self.port}"
        command = [opa_binary(), "run", "--server", "--addr", address, "--skip-version-check", "--log-level", "error"]
        command += self.options
        if self.file.exists():
            command += ["--bundle", str(self.file)]
        with (self.folder / "opa.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self._until_ready()
        return self

    def stop(self) -> None:
        """End it as a service manager would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, also if it is frozen or gone."""
        if self._process is not None:
            self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)
        self._process = None

    def _until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            assert self._process.poll() is None, (self.folder / "opa.log").read_text()
            try:
                if self._healthy():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.01)
        raise AssertionError(f"OPA was not ready within {READY_S} s: {(self.folder / 'opa.log').read_text()}")

    def _healthy(self) -> bool:
        transport = httpx.HTTPTransport(uds=str(self.socket)) if self._unix else None
        with httpx.Client(transport=transport, trust_env=False) as client:
            return client.get(f"http://127.0.0.1:{self.port}/health").status_code == httpx.codes.OK
