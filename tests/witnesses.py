"""A witness as a process of its own, as people run it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from processes import PATIENCE_S, started
from stepgrant import tlog
from stepgrant_broker.ledger.witness import witness_app
from stepgrant_broker.wiring.witnessing import open_witness

NAME = "witness.example"


@dataclass
class Running:
    """The witness's process."""

    url: str
    key: tlog.NoteKey
    pid: int

    def add(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=30)


@contextmanager
def witness(folder: Path, *logs: tlog.NoteKey, kill: bool = False) -> Iterator[Running]:
    """It runs while the block does, with key and memory in `folder`, and ends by a signal: `kill` is the one of -9."""
    named = [word for log in logs for word in ("--log", log.vkey)]
    command = ("ledger", "witness", "--name", NAME, *named, "--folder", str(folder), "--port", "0")
    with started(folder.parent, folder.parent / "witness.log", *command) as process:
        found = process.wait_for(rf"witness {NAME} (\S+) (http://127\.0\.0\.1:\d+)\n")
        yield Running(found[2], tlog.read_vkey(found[1]), process.process.pid)
        process.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        assert process.ended() == (-signal.SIGKILL if kill else 0)


@contextmanager
def witness_here(folder: Path, *logs: tlog.NoteKey) -> Iterator[Running]:
    """The same in a thread of this process, which starts sooner."""
    opened = open_witness(folder, NAME, [log.vkey for log in logs])
    server = uvicorn.Server(uvicorn.Config(witness_app(opened), port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, name="witness")
    thread.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while not server.started:
            assert time.monotonic() < end, "the witness did not start"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", opened.key, os.getpid())
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        opened.close()
