"""An issuer of identity tokens in a process of its own: it signs what it is told, and serves its keys over real HTTP.

    with issuer() as ours:
        token = ours.sign({"iss": ours.url, ...})         # RS256 by its newest key
        ours.rotate()                                      # a new key; the old one is gone from the set
        ours.serve("/jwks", status=302, headers={"location": "https://evil.example"})

Run as a program it is that process: it prints its port, and ends when its stdin does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

JWKS: Final = "/jwks"
DISCOVERY: Final = "/.well-known/openid-configuration"
PATIENCE_S: Final = 60.0


@dataclass
class Issuer:
    """The process, as tests see it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _tell(self, **order: object) -> Any:  # noqa: ANN401 - JSON
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/control", body=json.dumps(order))
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return json.loads(body)
        finally:
            connection.close()

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None, *, kid: str = "") -> str:
        """A token; header members replace the usual ones, None leaves one out. `kid`: by that key, also if removed."""
        return str(self._tell(do="sign", claims=dict(claims), header=dict(header or {}), kid=kid))

    def rotate(self, alg: str = "RS256", **members: object) -> str:
        """A new key instead of all others, published with these members; its kid."""
        return str(self._tell(do="rotate", alg=alg, members=members))

    def add_key(self, alg: str, **members: object) -> str:
        """Another key beside the others; it does not sign unless it is named."""
        return str(self._tell(do="add", alg=alg, members=members))

    def serve(
        self, path: str, body: str | None = None, *, status: int = 200, headers: Mapping[str, str] | None = None,
        hang_s: float = 0, repeat: int = 1,
    ) -> None:  # fmt: skip
        """From here on answer this at the path; without a body what it would serve anyway."""
        more = {"status": status, "headers": dict(headers or {}), "hang_s": hang_s, "repeat": repeat}
        self._tell(do="serve", path=path, body=body, **more)

    def heal(self) -> None:
        """Serve what is right again."""
        self._tell(do="heal")

    def published(self) -> list[dict[str, str]]:
        """The published keys."""
        return list(self._tell(do="keys"))

    def private_keys(self) -> list[dict[str, str]]:
        """What the issuer should never publish."""
        return list(self._tell(do="private"))

    def fetches(self, path: str = JWKS) -> int:
        """How often the path was asked for."""
        return int(self._tell(do="count", path=path))


@contextmanager
def issuer() -> Iterator[Issuer]:
    """Run one."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent
    )
    try:
        assert process.stdout is not None
        yield Issuer(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


# ---------------------------------------------------------------------------------------------------------- the process


@dataclass
class _State:
    keys: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    served: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    made: int = 0

    def make(self, alg: str, members: dict[str, Any]) -> str:
        from forging import eddsa, es256, rs256  # noqa: PLC0415  (only in the process)

        self.made += 1
        kid = f"key-{self.made}"
        self.keys[kid] = ({"RS256": rs256, "ES256": es256, "EdDSA": eddsa}[alg](), members)
        return kid

    def jwks(self, *, private: bool = False) -> list[dict[str, Any]]:
        found = []
        for kid in self.published:
            key, members = self.keys[kid]
            jwk = key.private_jwk if private else key.jwk
            found.append({**jwk, "kid": kid, "alg": key.alg, "use": "sig", **members})
        return found

    def obey(self, order: dict[str, Any]) -> object:
        match order["do"]:
            case "sign":
                kid = order["kid"] or self.published[-1]
                key = self.keys[kid][0]
                header = {"alg": key.alg, "kid": kid, "typ": "JWT", **order["header"]}
                return key.jws({k: v for k, v in header.items() if v is not None}, order["claims"])
            case "rotate":
                self.published = [self.make(order["alg"], order["members"])]
                return self.published[0]
            case "add":
                self.published.insert(0, self.make(order["alg"], order["members"]))
                return self.published[0]
            case "serve":
                self.served[order["path"]] = order
            case "heal":
                self.served.clear()
            case "count":
                return self.counts[order["path"]]
            case "keys" | "private":
                return self.jwks(private=order["do"] == "private")
            case unknown:
                raise ValueError(unknown)
        return None


def _handler(state: _State) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.counts[self.path] += 1
            own = f"http://127.0.0.1:{self.connection.getsockname()[1]}"
            right: dict[str, object] = {
                JWKS: {"keys": state.jwks()}, DISCOVERY: {"issuer": own, "jwks_uri": own + JWKS},
            }  # fmt: skip
            told = state.served.get(self.path, {})
            body = told.get("body")
            if body is None:
                body = json.dumps(right.get(self.path, {}))
            time.sleep(told.get("hang_s", 0))
            known = self.path in right or self.path in state.served
            self._answer(told.get("status", 200 if known else 404), body * told.get("repeat", 1), told.get("headers"))

        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._answer(200, json.dumps(state.obey(order)), None)

        def _answer(self, status: int, text: str, headers: Mapping[str, str] | None) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: stdout is for the port."""

    return Handler


def main() -> None:
    state = _State()
    state.obey({"do": "rotate", "alg": "RS256", "members": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)  # noqa: T201 - how the test learns the port
    sys.stdin.read()


if __name__ == "__main__":
    main()
