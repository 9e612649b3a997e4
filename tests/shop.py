"""A resource server for tests: it verifies and redeems every grant with `stepgrant.verify`, and keeps a book.

`POST /<tool>` with the tool's arguments as its body. It does the work as often as it is asked: nothing here would hide
a second call. `POST /<tool>.reconcile?key=…` tells what was done under an idempotency key.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from faults.forks import NO_TLS
from stepgrant import _clock
from stepgrant.errors import VerificationError
from stepgrant.testing import TestBroker
from stepgrant.verify import Action, BrokerRedeemer, GrantVerifier, JwksSource, Presented, WorkloadKey, refusal

quick = pytest.mark.parametrize(
    "broker", [{"redeem_window_ms": 1000, "leeway_ms": 200, "sweep_ms": 50}], indirect=True, ids=["quick"]
)
"""A used credential keeps others waiting for about a second, instead of fifteen."""


@dataclass
class Shop:
    """`acts` is the book: `(tool, args, idempotency key)` of everything that was done. `refused` are codes."""

    url: str
    acts: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: deque[str] = field(default_factory=deque)
    """What goes wrong with the next requests: `lost` (done, no answer) or `redeemed` (redeemed, then nothing)."""

    def tools(self, **effects: str) -> dict[str, dict[str, str]]:
        """Settings of tools whose grants are for this server."""
        return {name: {"effect": effect, "audience": self.url} for name, effect in effects.items()}

    def done(self, tool: str) -> int:
        """How often this was done."""
        return len([act for act in self.acts if act[0] == tool])


@contextmanager
def shop_for(broker: TestBroker) -> Iterator[Shop]:
    """A running shop that the broker knows."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    shop = Shop(f"http://127.0.0.1:{http.server_port}")
    key = WorkloadKey.load(broker.host.enroll("shop", audiences=[shop.url]))
    client = httpx.Client(verify=NO_TLS, trust_env=False)
    redeemer = BrokerRedeemer(broker.url, key, client=client, clock=_clock.now)
    keys = JwksSource(f"{broker.url}/.well-known/jwks.json", client=client)
    verifier = GrantVerifier(
        issuer=broker.host.issuer_url,
        audience=shop.url,
        tenant=broker.host.tenant,
        keys=keys,
        redeemer=redeemer,
        clock=_clock.now,
    )
    http.RequestHandlerClass = _handler(shop, verifier)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        client.close()


def _handler(shop: Shop, verifier: GrantVerifier) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            args = json.loads(self.rfile.read(int(self.headers["content-length"])))
            parts = urlsplit(self.path)
            tool = parts.path[1:]
            shop.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                presented = Presented.of("POST", shop.url + self.path, list(self.headers.items()))
                grant = verifier.verify_sync(presented, Action(tool, None, args))
            except VerificationError as error:
                shop.refused.append(error.code)
                answer = refusal(error)
                self._answer(answer.status, answer.body, answer.headers)
                return
            fault = shop.faults.popleft() if shop.faults and not tool.endswith(".reconcile") else None
            if tool.endswith(".reconcile"):
                wanted = parse_qs(parts.query)["key"][0]
                self._answer(200, json.dumps([act[1] for act in shop.acts if act[2] == wanted]).encode())
                return
            if fault != "redeemed":
                shop.acts.append((tool, args, str(grant.idempotency_key)))
            if fault is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(200, json.dumps({"done": tool, **args}).encode())

        def _answer(self, status: int, body: bytes, headers: Any = ()) -> None:  # noqa: ANN401 - pairs or a mapping
            self.send_response(status)
            for name, value in dict(headers).items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    return Handler
