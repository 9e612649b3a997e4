"""A server that stands before a real OPA and, when told to, answers what no real OPA answers.

Honest, it passes bytes on and passes the conformance suite. A lie is told to the next questions, on the connection that
asked; what it does to the bytes and to the socket is written out by the test.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias
from urllib.parse import urlsplit

Lie: TypeAlias = Callable[["Teller"], Awaitable[None]]


class Teller:
    """One question on its way: the honest answer, and the connection on which a lie is told."""

    def __init__(self, honest: bytes, writer: asyncio.StreamWriter) -> None:
        self.honest = honest
        self._writer = writer

    @property
    def body(self) -> bytes:
        """The body of the honest answer."""
        return self.honest.partition(b"\r\n\r\n")[2]

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", length: int | None = None, head: str = "") -> None:
        """A well-formed answer, but for what is said otherwise."""
        size = len(body) if length is None else length
        lines = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{head}Content-Length: {size}\r\n\r\n"
        await self.send(lines.encode() + body)

    async def replaced(self, old: bytes, new: bytes) -> None:
        """The honest answer with one part replaced."""
        assert old in self.body
        await self.answer(self.body.replace(old, new))

    def reset(self) -> None:
        """End the connection with RST."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def end(self) -> None:
        """End the connection with FIN."""
        self._writer.close()


class LyingOpa:
    """`lie` is told instead of the honest answer while it is set. `asked` counts questions, `connections` sockets."""

    def __init__(self, real: str) -> None:
        parts = urlsplit(real)
        self._real = (parts.hostname or "", parts.port or 0)
        self.lie: Lie | None = None
        self.asked = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        theirs, ours = await asyncio.open_connection(*self._real)
        try:
            while request := await _message(reader):
                self.asked += 1
                self.heads.append(request.partition(b"\r\n\r\n")[0])
                ours.write(request)
                if not (honest := await _message(theirs)):
                    return
                teller = Teller(honest, writer)
                await (self.lie(teller) if self.lie is not None else teller.send(teller.honest))
        except (ConnectionError, asyncio.IncompleteReadError):
            # The broker went away, which is its right.
            pass
        finally:
            ours.close()
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next whole message, or nothing at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    found = re.search(rb"(?i)content-length: (\d+)", head)
    return head + (await reader.readexactly(int(found[1])) if found else b"")


@asynccontextmanager
async def lying_opa(real: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[LyingOpa]:
    """Serve before the OPA at `real` (a URL)."""
    liar = LyingOpa(real)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(liar.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20, ssl=tls)
    liar.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield liar
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
