"""What the agents of these tests act on: a resource server in a process of its own, with a book that only grows.

Usage: target.py URL BROKER KEY_FILE BOOK SOCKET_FD

`POST /<tool>` with the tool's arguments as its body. Each grant is verified and redeemed with `stepgrant.verify`, and
nothing begins after `act_before`. It does the work as often as it is asked: nothing here would hide a second call, but
for `note.put`, which is idempotent and gives the same answer for the same key. `POST /<tool>.reconcile?key=…` tells
what was done under an idempotency key.

The header `Faults-Kill: <when>:<pid>` has it kill the agent that asks (a process that these tests started): `redeemed`,
with the grant spent and the work not begun; `done`, with the work done and no answer sent; `late`, as `redeemed`, and
the work begins at the last moment at which it may.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stepgrant.errors import VerificationError
from stepgrant.verify import (
    Action,
    BrokerRedeemer,
    GrantVerifier,
    JwksSource,
    Presented,
    VerifiedGrant,
    WorkloadKey,
    refusal,
)

LAST_MOMENT_S = 0.2


class Book:
    """What was done to this server and what it refused, oldest first; a line is on the disk before its answer is."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self.lines: list[dict[str, Any]] = []

    def note(self, **line: Any) -> None:  # noqa: ANN401 - JSON
        with self._lock:
            self.lines.append(line)
            os.write(self._fd, json.dumps(line).encode() + b"\n")
            os.fsync(self._fd)

    def done_under(self, key: str) -> list[dict[str, Any]]:
        with self._lock:
            return [line["answer"] for line in self.lines if line.get("key") == key]


def now_ms() -> int:
    """Milliseconds since the epoch, as in the books that `checker.evidence` describes."""
    return int(time.time() * 1000)


def spent(book: Book, grant: VerifiedGrant) -> None:
    """Write down that the broker said this grant is spent for us, before anything is done with it."""
    book.note(
        spent=grant.jti, run=grant.run_id, step=grant.step, attempt=grant.attempt, epoch=grant.epoch,
        act_before=grant.act_before, at=now_ms(),
    )  # fmt: skip


def act(book: Book, tool: str, args: Mapping[str, Any], grant: VerifiedGrant) -> dict[str, Any]:
    """Do the work, however often it is asked for."""
    key, at = str(grant.idempotency_key), now_ms()
    before = book.done_under(key) if tool == "note.put" else []
    answer = before[0] if before else {"id": uuid.uuid4().hex}
    book.note(
        did=tool, answer=answer, key=key, args=dict(args), run=grant.run_id, step=grant.step, attempt=grant.attempt,
        epoch=grant.epoch, jti=grant.jti, redeemed=grant.redeemed, at=at,
    )  # fmt: skip
    return answer


class Server(ThreadingHTTPServer):
    """One target, on a socket that listens already."""

    daemon_threads = True

    def __init__(self, fd: int, url: str, book: Book, verifier: GrantVerifier) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=fd)
        self.server_address = self.socket.getsockname()
        self.url, self.book, self.verifier = url, book, verifier


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """Verify, redeem, act, answer."""
        args = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parts = urlsplit(self.path)
        tool = parts.path[1:]
        try:
            presented = Presented.of("POST", self.server.url + self.path, list(self.headers.items()))
            grant = self.server.verifier.verify_sync(presented, Action(tool, None, args))
        except VerificationError as error:
            self.server.book.note(refused=error.code, tool=tool)
            refused = refusal(error)
            self._answer(refused.status, refused.body, dict(refused.headers))
            return
        if grant.redeemed:
            spent(self.server.book, grant)
        if tool.endswith(".reconcile"):
            self._answer(200, json.dumps(self.server.book.done_under(parse_qs(parts.query)["key"][0])).encode())
        else:
            self._act(tool, args, grant)

    def _act(self, tool: str, args: dict[str, Any], grant: VerifiedGrant) -> None:
        when, _, pid = self.headers.get("Faults-Kill", "").partition(":")
        if when in {"redeemed", "late"}:
            os.kill(int(pid), signal.SIGKILL)
        if when == "late":
            time.sleep(max(0.0, grant.act_before / 1000 - LAST_MOMENT_S - time.time()))
        if time.time() * 1000 >= grant.act_before:
            self.server.book.note(refused="too_late", tool=tool)
            self._answer(410, b'{"code": "too_late"}')
            return
        answer = act(self.server.book, tool, args, grant)
        if when == "done":
            os.kill(int(pid), signal.SIGKILL)
        self._answer(200, json.dumps(answer).encode())

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            # The agent was killed; the work is in the book all the same.
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until somebody ends this process, or its parent is gone."""
    url, broker, key, path, fd = sys.argv[1:]
    redeemer = BrokerRedeemer(broker, WorkloadKey.load(key), timeout_s=10)
    keys = JwksSource(f"{broker}/.well-known/jwks.json")
    verifier = GrantVerifier(issuer=broker, audience=url, keys=keys, redeemer=redeemer)
    server = Server(int(fd), url, Book(path), verifier)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
