"""The only sockets between an agent and its broker: keep-alive connections, blocking and asyncio.

Rules:
* `Answer` or `Unreachable`, never an exception of a library: whoever sends decides what to repeat (`_caller`).
* Certificates are checked as `httpx` does. Plain `http` is for loopback only, because credentials come back in answers.
* A kept connection may have been closed by the peer; that is noticed when it is used, and said (`stale`).
* A connection is used by one exchange at a time and belongs to one thread or one event loop while it is used; those
  that wait are kept for the next. Whatever goes wrong on a connection closes it.
* Proxies of the environment are not used: a broker is an internal service.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stepgrant._errors import ConfigurationError
from stepgrant._http import Answer, authorities, safe_url
from stepgrant._http1 import Broken, Exchanges, Request

if TYPE_CHECKING:
    import asyncio
    import ssl

_READ: Final = 65_536
_IDLE_MAX_S: Final = 60.0
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No answer. `why` names the kind of failure only; `stale`: a kept connection had been closed by the peer."""

    why: str
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's base URL, taken apart. `base` has no trailing slash."""

    base: str
    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises `ConfigurationError` for what is no http(s) URL, and for plain http to another machine."""
        try:
            parts = urlsplit(safe_url(url))
            host, port = parts.hostname, parts.port
        except (ConfigurationError, ValueError) as error:
            raise ConfigurationError(f"the broker's URL (url= or STEPGRANT_URL): {error}") from None
        if not host or parts.query or parts.fragment:
            raise ConfigurationError("the broker's URL (url= or STEPGRANT_URL) has no host, or a query or fragment")
        context = None
        if parts.scheme == "https":
            context = authorities()
            context.set_alpn_protocols(["http/1.1"])
        path = parts.path.rstrip("/")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", host, port or _PORTS[parts.scheme], path, context)

    @property
    def authority(self) -> bytes:
        """The `Host` header."""
        return urlsplit(self.base).netloc.encode("ascii")


class BlockingClient:
    """Connections for threads. All methods may be called from any thread."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: deque[_BlockingConnection] = deque()
        self._closed = False

    def send(self, request: Request) -> Answer | Unreachable:
        """One exchange."""
        connection = self._kept()
        fresh = connection is None
        try:
            if connection is None:
                connection = _BlockingConnection(self._address, request.timeout)
            answer = connection.exchange(request)
        except (OSError, Broken) as error:
            if connection is not None:
                connection.close()
            return Unreachable(_why(error), stale=not fresh and _was_closed(error))
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection.exchanges.reusable and not self._closed:
            connection.kept_at = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> _BlockingConnection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.kept_at < _IDLE_MAX_S:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close what waits, and keep nothing from here on."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class _BlockingConnection:
    def __init__(self, address: Address, timeout: float) -> None:
        plain = socket.create_connection((address.host, address.port), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket = address.tls.wrap_socket(plain, server_hostname=address.host) if address.tls else plain
        except BaseException:
            plain.close()
            raise
        self.exchanges = Exchanges(address.authority)
        self.kept_at = 0.0

    def exchange(self, request: Request) -> Answer:
        end = time.monotonic() + request.timeout
        self._socket.settimeout(request.timeout)
        self._socket.sendall(self.exchanges.start(request))
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            answer = self.exchanges.feed(self._socket.recv(_READ))
            if answer is not None:
                return answer

    def close(self) -> None:
        self._socket.close()


class AsyncClient:
    """Connections for event loops. Only those of the `home` loop are kept: another one may end without a word."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: deque[_AsyncConnection] = deque()
        self.home: asyncio.AbstractEventLoop | None = None

    async def send(self, request: Request) -> Answer | Unreachable:
        """One exchange."""
        import asyncio  # noqa: PLC0415 - as in `_flows`

        at_home = asyncio.get_running_loop() is self.home
        connection = self._kept() if at_home else None
        fresh = connection is None
        try:
            async with asyncio.timeout(request.timeout):
                if connection is None:
                    connection = await _AsyncConnection.open(self._address)
                answer = await connection.exchange(request)
        except (OSError, Broken) as error:
            if connection is not None:
                connection.close()
            return Unreachable(_why(error), stale=not fresh and _was_closed(error))
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if at_home and connection.exchanges.reusable:
            connection.kept_at = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> _AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.kept_at < _IDLE_MAX_S:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close what waits. Call it in the home loop."""
        while self._idle:
            self._idle.pop().close()


class _AsyncConnection:
    def __init__(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.exchanges = Exchanges(address.authority)
        self.kept_at = 0.0

    @classmethod
    async def open(cls, address: Address) -> _AsyncConnection:
        import asyncio  # noqa: PLC0415 - as in `_flows`

        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
        return cls(address, reader, writer)

    async def exchange(self, request: Request) -> Answer:
        self._writer.write(self.exchanges.start(request))
        await self._writer.drain()
        while True:
            answer = self.exchanges.feed(await self._reader.read(_READ))
            if answer is not None:
                return answer

    def close(self) -> None:
        self._writer.close()


def _was_closed(error: BaseException) -> bool:
    # A peer that is slow has not closed anything: another try at once would only add to its load.
    return not isinstance(error, TimeoutError)


def _why(error: BaseException) -> str:
    # The type only, or a text of ours: the text of a library's exception may hold what was sent.
    return str(error) if isinstance(error, Broken) else type(error).__name__
