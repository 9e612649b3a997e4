"""ASGI middleware: the application runs only with a verified grant in `scope["stepgrant"]`.

Rules:

* Everything is guarded except the paths named in `open_paths`; WebSockets are refused, for they have no one action.
* The body is read whole (capped) before anything runs, `extract` reads the action from that very body, and the
  application gets the same bytes: nothing can differ between what was checked and what is done.
* The URL of the proof is `public_url` plus the path as it came; no `Host` or forwarded header is looked at.
* Whatever `extract` raises, the application does not run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from stepgrant._dpop import normal_url
from stepgrant._errors import ConfigurationError
from stepgrant._verification_errors import InvalidRequest, VerificationError
from stepgrant.canonical import CanonicalError, JsonValue, dumps, loads
from stepgrant.verify._types import Action, Presented
from stepgrant.verify._verifier import GrantVerifier

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES: Final = 1_048_576
_STATUS: Final[Mapping[str, int]] = {
    "invalid_token": 401,
    "invalid_dpop_proof": 401,
    "use_dpop_nonce": 401,
    "invalid_request": 400,
    "digest_mismatch": 400,
    "stale_epoch": 409,
    "already_redeemed": 409,
    "grant_revoked": 410,
    "grant_expired": 410,
    "verification_unavailable": 503,
}
_ALGORITHMS: Final = 'algs="ES256 EdDSA"'
_TOO_LARGE: Final = 413
_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503
_SLASHES_OF_ORIGIN: Final = len("///")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The request as `extract` sees it. `path` is percent-decoded; header names are in lower case."""

    method: str
    path: str
    query_string: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> JsonValue:
        """The body as strict JSON. Raises `InvalidRequest`."""
        try:
            return loads(self.body, max_bytes=len(self.body))
        except CanonicalError as error:
            raise InvalidRequest(f"the body is not strict JSON: {error}", reason=error.code) from None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that refuses (RFC 9457, RFC 9449 §7.1), for servers of any kind."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def refusal(error: VerificationError) -> Refusal:
    """The answer for a failed verification. It names the check, never what was expected."""
    status = _TOO_LARGE if error.reason == "body_too_large" else _STATUS.get(error.code, 401)
    headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    if status == _UNAUTHORIZED:
        # A request without any token gets no error code (RFC 6750 §3.1): there is nothing wrong with what it sent.
        what = "" if error.reason == "missing" and error.code == "invalid_token" else f'error="{error.code}", '
        headers.append(("www-authenticate", f"DPoP {what}{_ALGORITHMS}"))
    if status == _UNAVAILABLE:
        headers.append(("retry-after", str(int(error.retry_after or 1))))
    code = "too_large" if status == _TOO_LARGE else error.code
    problem: dict[str, JsonValue] = {"type": "about:blank", "title": code, "status": status, "code": code}
    return Refusal(status, tuple(headers), dumps({**problem, "detail": error.message, "reason": error.reason}))


class StepgrantMiddleware:
    """Wraps an ASGI application.

    Args:
        app: runs only for a verified grant, which it finds in `scope["stepgrant"]` (a `VerifiedGrant`).
        verifier: made for this server.
        extract: says which action a request is; raises `InvalidRequest` (or anything) if it is none.
        public_url: how clients reach this server, without a path; by default the verifier's audience.
        open_paths: exact paths that anyone may call, for example `/healthz`.
        max_body_bytes: larger requests are refused.
    """

    def __init__(
        self,
        app: App,
        verifier: GrantVerifier,
        extract: Callable[[HttpRequest], Action],
        *,
        public_url: str | None = None,
        open_paths: Collection[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._extract = extract
        self._public_url = _origin(public_url or verifier.audience)
        self._open_paths = frozenset(open_paths)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._open_paths):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guarded(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(receive)
            if body is None:
                return  # the client went away
            headers = tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
            )
            presented = Presented.of(scope["method"], self._public_url + _path(scope), headers)
            query = scope.get("query_string", b"").decode("latin-1")
            action = self._extract(HttpRequest(scope["method"], scope["path"], query, headers, body))
            grant = await self._verifier.verify(presented, action)
        except VerificationError as error:
            await _answer(send, refusal(error))
            return
        await self._app({**scope, "stepgrant": grant}, _replay(body, receive), send)

    async def _body(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise InvalidRequest(f"the body has more than {self._max_body_bytes} bytes", reason="body_too_large")
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _path(scope: Scope) -> str:
    raw = scope.get("raw_path")
    if isinstance(raw, bytes):
        return raw.decode("latin-1")
    return quote(scope["path"])


async def _answer(send: Send, answer: Refusal) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _origin(url: str) -> str:
    try:
        whole = normal_url(url)
    except ValueError as error:
        raise ConfigurationError(f"public_url: {error}") from None
    if whole.count("/") > _SLASHES_OF_ORIGIN or not whole.endswith("/") or "?" in url or "#" in url:
        raise ConfigurationError("public_url must be the http(s) address of this server, without a path")
    return whole.rstrip("/")
