"""Keep-alive HTTP/1.1 to one OPA: one question at a time on a connection, and nothing believed that was not asked for.

Why not aiohttp, which opa-python-client brings: it costs 200 to 340 us of CPU for each call and reads an answer of any
length; this costs a tenth and stops reading (`Limits.answer_bytes`).

Rules:
* A connection serves one question and then the next. What comes without a question, or after the end of an answer,
  closes it: it could be taken for the answer to the next question.
* An answer whose length is not known before its end, or that is compressed, is refused; nobody asked for it.
* A connection that failed, was given up, or answered anything but 200 is not used again.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, NoReturn, cast

import httptools

from stepgrant_broker.policy.opa_place import Limits, OpaBusy, OpaFailed, Place, Reply, why

OK: Final = 200
MAX_HEAD_BYTES: Final = 16_384


class Connection(asyncio.Protocol):
    """One connection. `answered` of the open question is its only state between calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body = bytearray()
        self._seen = 0
        self._done = False
        self._lasting = False
        self.authorization = b""

    def __repr__(self) -> str:
        """Without the header that holds the token."""
        return f"<{type(self).__name__} to OPA>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection with its token can be neither pickled nor copied")

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> Reply:
        """Send one whole request and wait for its answer. Raises `OpaFailed`; the connection is then of no use."""
        if self._transport is None or self._transport.is_closing():
            raise OpaFailed("OPA closed the connection")
        self._parser, self._body = httptools.HttpResponseParser(self), bytearray()
        self._seen, self._done, self._lasting = 0, False, False
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._answered = answered
        self._transport.write(request)
        try:
            return await answered
        finally:
            self._answered = None

    def abort(self) -> None:
        """Close at once; OPA then stops working on the question."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._answered is None or self._answered.done() or self._parser is None:
            # Nobody asked: it would be read as the answer to the next question.
            self.abort()
            return
        self._seen += len(data)
        if self._seen > MAX_HEAD_BYTES + self._limits.answer_bytes:
            # Head, body and the framing of chunks together: none of them may go on for ever.
            self._fail(self._too_much())
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What our own callbacks raise comes back as its context.
            cause = error.__context__
            self._fail(str(cause) if isinstance(cause, OpaFailed) else "OPA's answer is not HTTP/1.1")
            return
        except OpaFailed as failed:
            self._fail(str(failed))
            return
        if self._done and not self._answered.done():
            status = self._parser.get_status_code()
            self._answered.set_result(Reply(status, bytes(self._body)))
            if status != OK or not self._lasting:
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        self._fail("OPA closed the connection before its answer was whole")

    def on_message_begin(self) -> None:
        """Of httptools."""
        if self._done:
            raise OpaFailed("OPA answered more than was asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools."""
        if name.lower() == b"content-encoding":
            raise OpaFailed("OPA's answer is compressed, which was not asked for")
        if name.lower() == b"content-length" and int(value) > self._limits.answer_bytes:
            raise OpaFailed(self._too_much())

    def on_body(self, body: bytes) -> None:
        """Of httptools."""
        self._body += body
        if len(self._body) > self._limits.answer_bytes:
            raise OpaFailed(self._too_much())

    def on_message_complete(self) -> None:
        """Of httptools."""
        self._done = True
        # Only within this call does the parser still know.
        self._lasting = self._parser is not None and self._parser.should_keep_alive()

    def _too_much(self) -> str:
        return f"OPA answered with more than {self._limits.answer_bytes} bytes"

    def _fail(self, reason: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(OpaFailed(reason))
        self.abort()


class Pool:
    """The connections to one OPA. All methods belong to one event loop."""

    def __init__(self, place: Place, limits: Limits) -> None:
        """Raises `OpaFailed` for a CA file that is none."""
        self._place = place
        self._limits = limits
        self._tls = place.tls_context()
        host = f"[{place.host}]" if ":" in place.host else place.host
        self._head = f" HTTP/1.1\r\nHost: {host}:{place.port}\r\nContent-Type: application/json\r\n".encode()
        self._turn = asyncio.Semaphore(limits.in_flight)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting = 0
        self._closed = False

    async def exchange(self, line: bytes, body: bytes) -> Reply:
        """Ask `line` (method and target) with `body`. Raises `OpaFailed`. A cancelled caller gives up its question."""
        if self._turn.locked() and self._waiting >= self._limits.waiting:
            raise OpaBusy("too many decisions are waiting")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._closed:
                raise OpaFailed("the policy engine is closed")
            connection = await self._connection()
            try:
                reply = await connection.ask(self._request(line, connection.authorization, body))
            except BaseException:
                self._drop(connection)
                raise
            self._keep(connection)
            return reply
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close every connection; whoever waits gets `OpaFailed`."""
        self._closed = True
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _connection(self) -> Connection:
        while self._idle:
            known = self._idle.pop()
            if known.open:
                return known
            self._all.discard(known)
        made = Connection(self._limits)
        # A small blocking read, once for each connection.
        made.authorization = self._place.authorization()
        loop = asyncio.get_running_loop()
        try:
            if self._place.socket is not None:
                await loop.create_unix_connection(lambda: made, self._place.socket)
            else:
                await loop.create_connection(lambda: made, self._place.host, self._place.port, ssl=self._tls)
        except (OSError, ssl.SSLError) as error:
            made.abort()
            raise OpaFailed(f"OPA cannot be reached at {self._place.url} ({why(error)})") from None
        if self._closed:
            made.abort()
            raise OpaFailed("the policy engine is closed")
        self._all.add(made)
        return made

    def _keep(self, connection: Connection) -> None:
        if connection.open:
            self._idle.append(connection)
        else:
            self._all.discard(connection)

    def _drop(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.abort()

    def _request(self, line: bytes, authorization: bytes, body: bytes) -> bytes:
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, self._head, authorization, len(body), body)
