# ruff: noqa: INP001, T201 - a program that is run as a file, and whose face is the terminal
"""The services that these examples act on: one small, real resource server that checks grants with `stepgrant.verify`.

    python _target.py                      serve until Ctrl-C
    python _target.py python refund.py     serve while this command runs, and end as it ends

Each request is `POST /<tool>?resource=<resource>` with the tool's arguments as JSON. The grant must be for exactly
that; otherwise nothing is done. Work of the class `idempotent` is done once for each idempotency key, all other work as
often as it is asked for: nothing here would hide a second charge. Everything that was done stands in a book, one JSON
line each, on the disk before its answer is. `POST /<tool>.reconcile?key=...` tells what was done under a key.

Environment: STEPGRANT_URL; EXAMPLES_TARGET, the address to serve at, which policy names as the audience; EXAMPLES_BOOK,
the book's file (`services.jsonl`); EXAMPLES_TARGET_KEY, an enrolled key: with it each grant is also redeemed, so that
it works only once; EXAMPLES_TENANT, the tenant whose grants are taken (`default`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
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

BROKER: Final = os.environ.get("STEPGRANT_URL", "http://127.0.0.1:8423")
ADDRESS: Final = os.environ.get("EXAMPLES_TARGET", "http://127.0.0.1:8431")
BOOK: Final = Path(os.environ.get("EXAMPLES_BOOK", "services.jsonl"))
KEY: Final = os.environ.get("EXAMPLES_TARGET_KEY")
TENANT: Final = os.environ.get("EXAMPLES_TENANT", "default")
BUSY_S: Final = 10.0

FACTS: Final[Mapping[str, Any]] = {
    "order.read": {"total": 180, "currency": "EUR", "delivered": False, "customer": "ada@example.com"},
    "change.diff": {"lines": 12, "hosts": ["db-1", "db-2"], "reversible": True},
    "service.list": ["billing", "search", "web"],
    "logs.search": [{"at": "02:13", "host": "web-3", "line": "login failed for ada@example.com"}] * 3,
    "hosts.list": ["web-3", "web-4"],
    "host.snapshot": {"processes": 113, "listening": [22, 443]},
    "person.read": {"name": "Ada", "team": "payments", "groups": ["vpn", "payments", "wiki"]},
}
"""What the services know from the beginning."""


class Book:
    """What was done, oldest first."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        self._file = path.open("a", encoding="utf-8")

    def done_under(self, key: str) -> list[Any]:
        """The answers of all that was done under this idempotency key."""
        with self._lock:
            return [line["answer"] for line in self._lines if line["key"] == key]

    def do(self, grant: VerifiedGrant, args: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Do the work, and say so only when it stands here."""
        key, at = str(grant.idempotency_key), int(time.time() * 1000)
        before = self.done_under(key) if grant.effect == "idempotent" else []
        with self._lock:
            known = FACTS.get(grant.tool, {"id": f"{grant.tool}-{len(self._lines) + 1}", **args})
            answer = before[0] if before else known
            line = {"did": grant.tool, "resource": grant.resource, "args": dict(args), "answer": answer, "key": key}
            place = {"run": grant.run_id, "step": grant.step, "attempt": grant.attempt, "epoch": grant.epoch}
            line |= {**place, "jti": grant.jti, "at": at}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._lines.append(line)
        return answer


class Services(ThreadingHTTPServer):
    """The server. A request reaches the book only with a grant for exactly what it asks."""

    daemon_threads = True

    def __init__(self) -> None:
        self.book = Book(BOOK)
        redeemer = BrokerRedeemer(BROKER, WorkloadKey.load(KEY)) if KEY else None
        keys = JwksSource(f"{BROKER}/.well-known/jwks.json")
        self.verifier = GrantVerifier(issuer=BROKER, audience=ADDRESS, tenant=TENANT, keys=keys, redeemer=redeemer)
        parts = urlsplit(ADDRESS)
        super().__init__((parts.hostname or "127.0.0.1", parts.port or 80), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Services

    def do_POST(self) -> None:
        """Verify, act, answer."""
        args = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        tool, resource = path.removeprefix("/"), query.get("resource", [None])[0]
        try:
            presented = Presented.of("POST", ADDRESS + self.path, list(self.headers.items()))
            grant = self.server.verifier.verify_sync(presented, Action(tool, resource, args))
        except VerificationError as error:
            refused = refusal(error)
            self._answer(refused.status, refused.body, dict(refused.headers))
            return
        if time.time() * 1000 >= grant.act_before:
            self._answer(410, b'{"code": "too_late"}', {})
        elif tool.endswith(".reconcile"):
            found = self.server.book.done_under(query.get("key", [""])[0])
            self._answer(200, json.dumps(found).encode(), {})
        else:
            self._answer(200, json.dumps(self.server.book.do(grant, args)).encode(), {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # whoever asked is gone; what was done stands in the book

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the agent's."""


def started() -> Services:
    """The services; waits a moment for an address that another run of this program is about to give up."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return Services()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main(words: list[str]) -> int:
    """Serve, alone or for a command. A command that a signal killed kills this program in the same way."""
    services = started()
    threading.Thread(target=services.serve_forever, args=(0.05,), daemon=True).start()
    if not words:
        print(f"the services are at {ADDRESS}, their book is {BOOK}; Ctrl-C ends them")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        return 0
    code = subprocess.run(words, check=False).returncode  # noqa: S603 - what the caller asked for
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
