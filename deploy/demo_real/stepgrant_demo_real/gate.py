"""A gate for TCP connections on loopback: the load balancer of the brokers, and the network before the database.

Rules:
* Each new connection goes to the next backend in turn that takes it. Whoever's backend dies is disconnected and may
  come again: that is all a load balancer has to do here.
* `hold` stops everything on the way, as a network that lost its route: connections are taken, nothing goes through.
  `let_through` goes on. A connection whose client went away while it was held never reaches a backend.
* It runs in a thread of its own with a loop of its own; it sees bytes and looks at none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

CHUNK: Final = 65_536
END_S: Final = 5.0


class Gate:
    """Listens at `port`, in front of these ports of 127.0.0.1. Use it as a context manager."""

    def __init__(self, name: str, listening: socket.socket, backends: Sequence[int]) -> None:
        """`listening` is a bound socket; the gate owns it from here on."""
        self.port: int = listening.getsockname()[1]
        self._socket = listening
        self._backends = list(backends)
        self._turn = 0
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"gate-{name}", daemon=True)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def backends(self) -> tuple[int, ...]:
        """The ports behind it."""
        return tuple(self._backends)

    @property
    def waiting(self) -> int:
        """Connections that are held before their first byte went through."""
        return self._waiting

    def hold(self) -> None:
        """From when this returns nothing goes through."""
        self._call(self._open.clear)

    def let_through(self) -> None:
        """End a `hold`."""
        self._call(self._open.set)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)
        self._socket.close()

    def _call(self, what: object) -> None:
        done = threading.Event()

        def work() -> None:
            if callable(what):
                what()
            done.set()

        self._loop.call_soon_threadsafe(work)
        done.wait(END_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            first = await reader.read(CHUNK)
            if not await self._may_pass(reader):
                first = b""
            if first:
                await self._pass_on(reader, writer, first)
        writer.close()

    async def _may_pass(self, reader: asyncio.StreamReader) -> bool:
        """Wait while the gate is held; False if the client went away meanwhile."""
        self._waiting += 1
        try:
            while not self._open.is_set():
                if reader.at_eof():
                    return False
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._open.wait(), 0.02)
            return not reader.at_eof()
        finally:
            self._waiting -= 1

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes) -> None:
        upstream = await self._connect()
        if upstream is None:
            return
        back, forth = upstream
        forth.write(first)
        tasks = [asyncio.ensure_future(self._pump(reader, forth)), asyncio.ensure_future(self._pump(back, writer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            forth.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._backends:
            port = self._backends[self._turn % len(self._backends)]
            self._turn += 1
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self._open.is_set():
                    await self._open.wait()
                    if reader.at_eof():
                        return  # who sent it is gone, and what was on the way is lost
                writer.write(data)
                await writer.drain()


def listen() -> socket.socket:
    """A socket at a free port of the loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    return listening
