"""The broker's place at the other end of the wire: it answers what a test says, and keeps what it was sent.

The real broker's answers are in tests/contract; here it is about what a client sends, shows and refuses.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Sent:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Desk:
    """Answers by method and path; a list is answered one by one. What is not known is a 404 problem.

    `meanwhile`: what happens elsewhere while a call is under way.
    """

    url: str
    answers: dict[str, Any] = field(default_factory=dict)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def says(self, call: str, body: object, status: int = 200, **headers: str) -> None:
        self.answers[call] = (status, body, headers)

    def refuses(self, call: str, status: int, code: str, detail: str = "no") -> None:
        self.says(call, {"code": code, "detail": detail, "title": "No", "status": status}, status)

    def calls(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.sent]


def _handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = Sent(self.command, parts.path, query, headers, json.loads(data) if data else None)
            desk.sent.append(sent)
            desk.meanwhile.get(f"{self.command} {parts.path}", lambda: None)()
            unknown: tuple[int, Any, dict[str, str]] = (404, {"code": "not_found", "detail": "no such thing"}, {})
            known = desk.answers.get(f"{self.command} {parts.path}", unknown)
            status, body, more = known.pop(0) if isinstance(known, list) else known
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **more}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
            """Be silent."""

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - those of socketserver
        """A client that goes away in the middle (Ctrl-C) is none; all else is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def open_desk() -> Iterator[Desk]:
    """A desk that listens on loopback while the block runs."""
    desk = Desk("")
    server = _Server(("127.0.0.1", 0), _handler(desk))
    desk.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield desk
    finally:
        server.shutdown()
        server.server_close()
