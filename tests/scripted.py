"""A broker's HTTP face with recorded answers, on a real socket: for faults that a real broker cannot be made to show.

It keeps no state and decides nothing. Each call is answered with the next scripted item for its verb, else with the
recorded answer of a run in which all goes well. What may be wrong between SDK and broker (lost replies, garbage, storms
of 503) is an item; everything that a real broker can show is tested against one, in tests/contract/sdk.
"""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stepgrant._dpop import Proof, verify_proof
from stepgrant._exchange import WorkloadKey

TOKEN = "granted.token.made-up-but-long-enough"
RUN = "run_01scripted"


@dataclass(frozen=True)
class Reply:
    """A whole answer. `retry_after` in seconds."""

    body: Any
    status: int = 200
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


@dataclass(frozen=True)
class Lost:
    """The request arrives, the connection ends without an answer."""


@dataclass(frozen=True)
class Raw:
    """These bytes instead of an answer; then the connection ends."""

    data: bytes


@dataclass(frozen=True)
class Slow:
    """The recorded answer, when the test says `now`."""

    now: threading.Event = field(default_factory=threading.Event)


Item = Reply | Lost | Raw | Slow | Callable[["Seen"], "Reply"]


def problem(code: str, status: int, *, retry_after: int | None = None, **more: Any) -> Reply:
    """A problem document, as the broker writes it."""
    body = {"type": f"urn:stepgrant:problem:{code}", "title": code, "status": status, "code": code, **more}
    return Reply(body, status, retry_after, content_type="application/problem+json")


@dataclass(frozen=True)
class Seen:
    """One request. `verb`: `token`, `runs` (open), `list`, `run.complete` etc., `step` (a look), `begin` etc."""

    verb: str
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: Any
    proof: Proof
    at: float
    connection: int


def released_credential(**changes: Any) -> dict[str, Any]:
    """A released credential."""
    return {
        "kind": "jwt",
        "fields": {"token": TOKEN},
        "hosts": ["https://tool.example"],
        "expires_at": 1_800_000_060_000,
        "revocation": "expiry",
        "run": RUN,
        **changes,
    }


def granted(step: str, attempt: int = 1, *, credential: dict[str, Any] | None = None, **grant: Any) -> dict[str, Any]:
    """The outcome `run`, with grant and credential."""
    issued: dict[str, Any] = {
        "jti": "grn_1",
        "issued_at": 1_800_000_000_000,
        "expires_at": 1_800_000_060_000,
        "audience": "https://tool.example",
        "issuer": "jwt",
        "effect": "once",
        "redeem": "required",
        "idempotency_key": "sg-key-of-the-step",
        **grant,
    }
    released = credential if credential is not None else released_credential()
    return {"outcome": "run", "step": step, "attempt": attempt, "grant": issued, "credential": released}


def opened(**changes: Any) -> dict[str, Any]:
    """The answer to open."""
    return {
        "run": RUN,
        "run_key": "job",
        "agent": "agent",
        "epoch": 1,
        "resumed": False,
        "lease_ms": 30_000,
        "lease_until": 1_800_000_030_000,
        "input": None,
        "has_input": False,
        "history": {"steps": 0, "outcomes": {}, "tools": {}, "parked_ms": 0},
        "in_doubt": [],
        **changes,
    }


class ScriptedBroker:
    """The server, its script and what it has seen."""

    def __init__(self, url: str = "", workload_key: Path | None = None) -> None:
        self.url = url
        self.workload_key = workload_key
        self.script: dict[str, deque[Item]] = defaultdict(deque)
        self.seen: list[Seen] = []
        self.nonce = "nonce-1"
        self.connections = 0
        self._lock = threading.Lock()

    def at(self, **more: Any) -> dict[str, Any]:
        """The options of `stepgrant.run` that reach this server, and more of them."""
        return {"url": self.url, "workload_key": self.workload_key, **more}

    def will(self, verb: str, *items: Item) -> None:
        """The next answers for this verb."""
        self.script[verb].extend(items)

    def calls(self, verb: str) -> list[Seen]:
        """The requests of one verb so far."""
        return [one for one in self.seen if one.verb == verb]

    async def asked(self, verb: str, times: int = 1) -> None:
        """Wait until it was asked so often."""
        async with asyncio.timeout(60):
            while len(self.calls(verb)) < times:  # noqa: ASYNC110 - the server is a thread
                await asyncio.sleep(0.005)

    @property
    def verbs(self) -> list[str]:
        """All verbs so far, without token exchanges and heartbeats."""
        return [one.verb for one in self.seen if one.verb not in {"token", "run.heartbeat"}]

    def _next(self, verb: str) -> Item | None:
        with self._lock:
            return self.script[verb].popleft() if self.script[verb] else None

    def _recorded(self, seen: Seen) -> Reply:
        parts = seen.path.split("/")
        key = parts[5] if len(parts) > 5 else ""
        match seen.verb:
            case "token":
                return Reply({"access_token": "access.token.1", "token_type": "DPoP", "expires_in": 300})
            case "runs":
                return Reply(opened(agent=seen.body["agent"], run_key=seen.body.get("run_key", "run_01named")))
            case "begin":
                return Reply(granted(key))
            case "record":
                return Reply({"outcome": "recorded", "step": key, "attempt": 1})
            case "step":
                return problem("unknown_step", 404)
            case _ if key:
                return Reply({"step": key, "attempt": 1, "state": "completed"})
            case _:
                return Reply({"run": RUN, "epoch": 1, "state": "open"})


def _verb_of(method: str, path: str) -> str:
    parts = path.partition("?")[0].split("/")
    if method == "GET" and parts[-1] == "runs":
        return "list"
    if "steps" in parts:
        return "step" if len(parts) == 6 else parts[-1]
    return f"run.{parts[-1]}" if len(parts) == 5 else parts[-1]


class _Handler(BaseHTTPRequestHandler):
    broker: ScriptedBroker
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536

    def setup(self) -> None:
        super().setup()
        self.broker.connections += 1
        self.number = self.broker.connections

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        data = self.rfile.read(length)
        verb = _verb_of(self.command, self.path)
        url = f"http://{self.headers['host']}{self.path}"
        token = self.headers["authorization"].removeprefix("DPoP ") if verb != "token" else None
        proof = verify_proof(self.headers["dpop"], method=self.command, url=url, token=token, now_s=time.time())
        body = json.loads(data) if data and verb != "token" else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(verb, self.command, self.path, headers, body, proof, time.monotonic(), self.number)
        item = self.broker._next(verb)
        self.broker.seen.append(seen)
        self._answer(item, seen)

    do_GET = do_POST  # noqa: N815 - the name that http.server calls

    def _answer(self, item: Item | None, seen: Seen) -> None:
        if isinstance(item, Lost):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(item, Raw):
            self.close_connection = True
            self.wfile.write(item.data)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(item, Slow):
            item.now.wait(600)
        reply = item if isinstance(item, Reply) else item(seen) if callable(item) else self.broker._recorded(seen)
        text = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("content-type", reply.content_type)
        self.send_header("content-length", str(len(text)))
        self.send_header("dpop-nonce", self.broker.nonce)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.retry_after is not None:
            self.send_header("retry-after", str(reply.retry_after))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up is what some tests are about."""


@contextmanager
def scripted(folder: Path) -> Iterator[ScriptedBroker]:
    """A running server."""
    broker = ScriptedBroker()
    server = _Server(("127.0.0.1", 0), type("_Bound", (_Handler,), {"broker": broker}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    broker.url, broker.workload_key = f"http://127.0.0.1:{server.server_port}", folder / "workload.json"
    WorkloadKey.generate("wkl_scripted").save(broker.workload_key)
    try:
        yield broker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
