"""A small Vault over real HTTP that tells the truth until a test makes it lie, hang or break.

It knows what the broker asks for: logins, per-grant tokens, database logins, leases, wrapping. The conformance suite of
issuers runs over it, so what it says when honest is what Vault says.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Self
from uuid import uuid4

from logins import CREATION, REVOCATION
from stepgrant_broker.domain.ports import Minted
from stepgrant_broker.issuers.vault_database import DatabaseConfig, VaultDatabaseIssuer
from vaulted import client

CONFIG: Final = DatabaseConfig(
    name="orders-db", mount="database", roles=("orders-rw", "orders-ro"), max_ttl_s=60, token_role="stepgrant",
    host="127.0.0.1", port=5432, database="orders",
)  # fmt: skip
ROOT: Final = "hvs.the-brokers-own-token"
SECRET_ID: Final = "11111111-2222-3333-4444-555555555555"


class Answer(NamedTuple):
    """A status and a JSON value."""

    status: int
    body: Any


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Lie:
    """What becomes of the answers of one path, `times` times (for ever without).

    `instead` is answered and nothing is done; `change` gets the true answer; `raw` is sent as it is; `hold` is waited
    for before anything is done, `keep` before the answer is sent; `drop` closes the connection after the work was done;
    `drip_s`: the answer is sent byte by byte, with this pause.
    """

    instead: Answer | None = None

    change: Callable[[Answer], Answer] | None = None
    raw: bytes | None = None
    hold: threading.Event | None = None
    keep: threading.Event | None = None
    drop: bool = False
    drip_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None


def error(status: int, *words: str) -> Answer:
    return Answer(status, {"errors": list(words)})


def secret(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A whole answer of Vault."""
    common = {"request_id": str(uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0, "data": None}
    return {**common, "wrap_info": None, "warnings": None, "auth": None, **more}


class LyingVault:
    """`with LyingVault() as fake`: `lies[path]`, `asked`, `tokens` (token to accessor), `leases` (id to login)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.config = CONFIG
        self.role_ttl_s = 60
        self.life_s = 3600
        self.lies: dict[str, Lie] = {}
        self.asked: list[Asked] = []
        self.sessions = {ROOT}
        self.tokens: dict[str, str] = {}
        self.leases: dict[str, dict[str, str]] = {}
        self.wrapped: dict[str, str] = {}
        self.creation_path = "auth/approle/role/stepgrant/secret-id"
        self.connections = 0
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def addr(self) -> str:
        assert self._server is not None
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        fake = self

        class Handler(_Handler):
            vault: ClassVar[LyingVault] = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        for lie in self.lies.values():
            for event in (lie.hold, lie.keep):
                if event is not None:
                    event.set()
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        """What was asked, without the broker's own session."""
        return [one.path for one in self.asked if not one.path.startswith("auth/token/lookup-self")]

    @asynccontextmanager
    async def issuer(self, folder: Path) -> AsyncIterator[VaultDatabaseIssuer]:
        """Our issuer on it, with a session."""
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(ROOT)
        async with client(self.addr, token_file) as vault:
            yield self.config.build(vault)

    async def works(self, minted: Minted) -> bool:
        """Whether this login is there."""
        given = minted.fields
        known = {(login["username"], login["password"]) for login in self.leases.values()}
        return (given["username"], given["password"]) in known

    def answer(self, asked: Asked) -> Answer:
        """The truth."""
        token = asked.headers.get("x-vault-token", "")
        match asked.method, asked.path.split("/"):
            case "POST", ["auth", _, "login"]:
                return self._login(asked.body)
            case "POST", ["sys", "wrapping", "lookup"]:
                known = asked.body["token"] in self.wrapped
                data = {"creation_path": self.creation_path}
                return Answer(200, secret(data=data)) if known else error(400, "wrapping token is not valid or ...")
            case "POST", ["sys", "wrapping", "unwrap"]:
                inside = self.wrapped.pop(token, None)
                return Answer(200, secret(data={"secret_id": inside})) if inside else error(400, "wrapping token ...")
            case _:
                return self._known(asked, token)

    def _known(self, asked: Asked, token: str) -> Answer:
        if token not in self.sessions and token not in self.tokens:
            return error(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        return self._with_token(asked, token)

    def _with_token(self, asked: Asked, token: str) -> Answer:
        match asked.method, asked.path.split("/"):
            case "GET", ["auth", "token", "lookup-self"]:
                return Answer(200, secret(data={"ttl": self.life_s, "renewable": True}))
            case "POST", ["auth", "token", "renew-self"]:
                return Answer(200, secret(auth=self._auth(token)))
            case "POST", ["auth", "token", "revoke-self"]:
                self.sessions.discard(token)
                return Answer(204, None)
            case "POST", ["auth", "token", "create", "stepgrant"]:
                return self._create(asked.body)
            case "POST", ["auth", "token", "revoke-accessor"]:
                return self._revoke_accessor(str(asked.body["accessor"]))
            case "PUT", ["sys", "leases", "revoke"]:
                self.leases.pop(str(asked.body["lease_id"]), None)
                return Answer(204, None)
            case "POST", ["sys", "leases", "lookup"]:
                lease = str(asked.body["lease_id"])
                return Answer(200, secret(data={"id": lease})) if lease in self.leases else error(400, "invalid lease")
            case "GET", [_, "roles", role]:
                return self._role(role)
            case "GET", [_, "creds", role]:
                return self._creds(token, role)
            case _:
                return error(404)

    def _auth(self, token: str) -> dict[str, Any]:
        return {"client_token": token, "accessor": "own", "lease_duration": self.life_s, "renewable": True}

    def _login(self, body: dict[str, Any]) -> Answer:
        if body not in ({"role_id": "role", "secret_id": SECRET_ID}, {"role": "broker", "jwt": "a.fresh.jwt"}):
            return error(400, "invalid role or secret ID")
        token = f"hvs.{uuid4().hex}"
        self.sessions.add(token)
        return Answer(200, secret(auth=self._auth(token)))

    def _create(self, body: dict[str, Any]) -> Answer:
        token, accessor = f"hvs.{uuid4().hex}", uuid4().hex
        self.tokens[token] = accessor
        auth = {
            "client_token": token, "accessor": accessor, "policies": body["policies"], "metadata": body["meta"],
            "lease_duration": int(body["explicit_max_ttl"].removesuffix("s")), "renewable": body["renewable"],
            "orphan": True, "num_uses": 0, "token_type": "service", "entity_id": "",
        }  # fmt: skip
        return Answer(200, secret(auth=auth))

    def _revoke_accessor(self, accessor: str) -> Answer:
        dead = {token for token, known in self.tokens.items() if known == accessor}
        self.leases = {lease: login for lease, login in self.leases.items() if login["token"] not in dead}
        for token in dead:
            del self.tokens[token]
        warnings = None if dead else ["No token found with this accessor"]
        return Answer(204, None) if dead else Answer(200, secret(warnings=warnings))

    def _role(self, role: str) -> Answer:
        if role not in self.config.roles:
            return error(404)
        data = {"default_ttl": self.role_ttl_s, "max_ttl": self.role_ttl_s, "db_name": "app"}
        statements = {"creation_statements": list(CREATION), "revocation_statements": list(REVOCATION)}
        return Answer(200, secret(data={**data, **statements}))

    def _creds(self, token: str, role: str) -> Answer:
        lease = f"{self.config.mount}/creds/{role}/{uuid4().hex}"
        login = {"username": f"v-{uuid4().hex}", "password": uuid4().hex}
        self.leases[lease] = {**login, "token": token}
        return Answer(200, secret(lease_id=lease, lease_duration=self.role_ttl_s, renewable=True, data=login))


class _Handler(BaseHTTPRequestHandler):
    vault: ClassVar[LyingVault]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.vault.connections += 1

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path.removeprefix("/v1/"), body, headers)
        lie = self._lie(asked)
        if lie.hold is not None:
            lie.hold.wait(30)
        with self.vault._lock:
            self.vault.asked.append(asked)
            answer = lie.instead or self.vault.answer(asked)
        if lie.keep is not None:
            lie.keep.wait(30)
        if lie.drop:
            self.close_connection = True
            return
        if lie.change is not None:
            answer = lie.change(answer)
        self._send(answer, lie)

    def _lie(self, asked: Asked) -> Lie:
        lie = self.vault.lies.get(asked.path)
        if lie is None or lie.times == 0:
            return Lie()
        if lie.times is not None:
            lie.times -= 1
        return lie

    def _send(self, answer: Answer, lie: Lie) -> None:
        text = lie.raw if lie.raw is not None else b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **lie.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            for part in [text] if not lie.drip_s else [text[at : at + 1] for at in range(len(text))]:
                self.wfile.write(part)
                time.sleep(lie.drip_s)

    do_GET = do_POST = do_PUT = do_LIST = do_DELETE = _serve  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""
