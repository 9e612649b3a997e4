"""What the adapter suite's tools act on: a resource server with a book, and the truth about what was done.

`POST /<tool>` with the tool's arguments as its body: each grant is verified and redeemed, then the work is done, as
often as it is asked for. `POST /<tool>.reconcile?key=…` tells what was done under an idempotency key. The header
`Adapter-Kill: <pid>` has it kill the agent that asks, with the grant spent and the work not begun.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx

from stepgrant import _clock
from stepgrant._errors import StepgrantError
from stepgrant._verification_errors import VerificationError
from stepgrant.testing._broker import TestBroker
from stepgrant.verify import Action, BrokerRedeemer, GrantVerifier, JwksSource, Presented, WorkloadKey, refusal

KILL = "Adapter-Kill"
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody. The suite speaks plain HTTP on this machine; to load whom one trusts takes longer than a call."""


@dataclass(frozen=True)
class Act:
    """One piece of work that was done. `jti` names the grant under which."""

    tool: str
    args: Mapping[str, Any]
    key: str
    jti: str
    step: str


@dataclass
class Target:
    """`acts` is the book. `tokens` are the credentials that it was shown."""

    url: str
    acts: list[Act] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set, repr=False)

    def done(self, tool: str) -> int:
        """How often this was done."""
        return sum(act.tool == tool for act in self.acts)


@contextmanager
def target_for(broker: TestBroker) -> Iterator[Target]:
    """A running target that the broker knows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    target = Target(f"http://127.0.0.1:{server.server_port}")
    key = WorkloadKey.load(broker.host.enroll("adapter-target", audiences=[target.url]))
    client = httpx.Client(verify=NO_TLS, trust_env=False, timeout=20)
    verifier = GrantVerifier(
        issuer=broker.host.issuer_url,
        audience=target.url,
        tenant=broker.host.tenant,
        keys=JwksSource(f"{broker.url}/.well-known/jwks.json", client=client),
        redeemer=BrokerRedeemer(broker.url, key, timeout_s=20, client=client, clock=_clock.now),
        clock=_clock.now,
    )
    server.RequestHandlerClass = _handler(target, verifier)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield target
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        client.close()


def _handler(target: Target, verifier: GrantVerifier) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Verify, redeem, act, answer."""
            args = json.loads(self.rfile.read(int(self.headers["content-length"])))
            parts = urlsplit(self.path)
            tool = parts.path[1:]
            target.tokens.add(self.headers.get("authorization", "").partition(" ")[2])
            try:
                presented = Presented.of("POST", target.url + self.path, list(self.headers.items()))
                grant = verifier.verify_sync(presented, Action(tool, None, args))
            except VerificationError as error:
                refused = refusal(error)
                self._answer(refused.status, refused.body, dict(refused.headers))
                return
            if tool.endswith(".reconcile"):
                wanted = parse_qs(parts.query)["key"][0]
                found = [{"done": act.tool, **act.args} for act in target.acts if act.key == wanted]
                self._answer(200, json.dumps(found).encode(), {})
                return
            if KILL in self.headers:
                os.kill(int(self.headers[KILL]), signal.SIGKILL)
                return
            target.acts.append(Act(tool, args, str(grant.idempotency_key), grant.jti, grant.step))
            self._answer(200, json.dumps({"done": tool, **args}).encode(), {})

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
                # The agent was killed; the work is in the book all the same.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


class AdapterBroken(StepgrantError):
    """A case of the suite found that the adapter does not keep its promise."""

    code = "adapter_broken"
