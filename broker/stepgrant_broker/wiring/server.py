"""Serving a broker over HTTP: one socket, one event loop, a graceful end.

Rules:
* A socket that others can reach needs TLS, or the operator's word that a proxy ends it (`api.serve`).
* No forwarded header is believed, and none of our answers says what software made it.
* Requests are not logged by the server below us: a path or query may hold whatever a caller put there by mistake.
* SIGINT and SIGTERM end it gracefully: calls under way are answered, then ports are closed by whoever opened them. A
  second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvicorn

from stepgrant_broker.api.serve import refuse_unsafe_bind
from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.wiring.replies import BreakableReplies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from stepgrant_broker.config import Settings
    from stepgrant_broker.wiring.broker import Broker

GRACE_S: Final = 10
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 2048
START_S: Final = 30.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Listening:
    """A bound socket. `url` is where it can be reached from this machine."""

    socket: socket.socket
    url: str

    @property
    def port(self) -> int:
        """The port, also where a free one was taken."""
        return int(self.socket.getsockname()[1])


def listen(settings: Settings) -> Listening:
    """Bind the socket that the settings name. Raises `UnsafeBind`, `SettingsError` for an address that is taken."""
    refuse_unsafe_bind(
        settings.host, tls=settings.tls_cert is not None, proxy_terminates_tls=settings.proxy_terminates_tls
    )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        where = f"{settings.host}:{settings.port}"
        raise SettingsError([f"{PREFIX}PORT: cannot listen on {where} ({error.strerror or error})"]) from None
    scheme = "https" if settings.tls_cert is not None else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return Listening(bound, f"{scheme}://{host}:{bound.getsockname()[1]}")


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process by the signal before our ports are closed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield

    def end(self) -> None:
        """Gracefully, or at once if it was asked for before."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _server(broker: Broker) -> _Server:
    app, failpoints = broker.make_app(), broker.ports.failpoints
    return _server_of(app if failpoints is None else BreakableReplies(app, failpoints), broker.settings)


def _server_of(app: ASGIApp, settings: Settings) -> _Server:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return _Server(config)


async def serve(broker: Broker, listening: Listening, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve until a signal ends it. `ready` is told the URL once calls are answered."""
    await _until_a_signal(_server(broker), listening, ready)


async def serve_app(app: ASGIApp, settings: Settings, listening: Listening, *, ready: Callable[[str], None]) -> None:
    """Serve another application than a broker's, until a signal ends it."""
    await _until_a_signal(_server_of(app, settings), listening, ready)


async def _until_a_signal(server: _Server, listening: Listening, ready: Callable[[str], None] | None) -> None:
    with _ended_by_signals(server):
        async with _serving(server, listening) as task:
            if ready is not None:
                ready(listening.url)
            await task


@asynccontextmanager
async def served(broker: Broker, listening: Listening) -> AsyncIterator[str]:
    """Serve while the block runs; its URL."""
    server = _server(broker)
    async with _serving(server, listening) as task:
        try:
            yield listening.url
        finally:
            server.end()
            await task


@asynccontextmanager
async def _serving(server: _Server, listening: Listening) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(server.serve(sockets=[listening.socket]), name="stepgrant-http")
    try:
        await _up(server, task)
        yield task
    finally:
        if not task.done():
            server.end()
            await task
        listening.socket.close()


async def _up(server: _Server, task: asyncio.Task[None]) -> None:
    """Wait until calls are answered. Raises what kept the server from starting."""
    waiting = asyncio.create_task(server.is_up.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        await task


@contextmanager
def _ended_by_signals(server: _Server) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, server.end)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The fastest event loop of this platform."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - not there on Windows

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
