"""A service with an API key, over real HTTP: what a static secret is for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering_to(key: str) -> Iterator[str]:
    """Its address (host:port) while the block runs: 200 for this Authorization, 401 for any other."""

    class MailServer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") == key else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), MailServer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
