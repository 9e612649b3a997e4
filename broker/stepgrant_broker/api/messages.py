"""One HTTP request as it arrives and one answer as it leaves, without a framework's objects around them.

The hot routes pay for every layer, so a request is read straight from ASGI: the few headers that count, and a body that
stops at its limit. Rules:

* A body is refused by its `Content-Length` before any of it is read, and by count while it is read.
* A header that decides something may stand there once; with two of them, two readers could take different ones.
* No answer of the API may be stored by anybody (`Cache-Control: no-store`), except public keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

from stepgrant_broker.domain.errors import InvalidRequest, TooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON: Final = b"application/json"
FORM: Final = b"application/x-www-form-urlencoded"
SECURITY_HEADERS: Final[Sequence[tuple[bytes, bytes]]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
NO_STORE: Final = (b"cache-control", b"no-store")
_MAX_LENGTH_DIGITS: Final = 15

_encode = msgspec.json.Encoder().encode


class ClientGoneError(Exception):
    """The connection ended before the request did; there is nobody to answer."""


class Incoming:
    """A request on its way in. `nonce` is set when the client should use another DPoP nonce from now on."""

    __slots__ = ("_by_name", "_repeated", "method", "nonce", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.nonce: str | None = None
        # Several headers are asked for; one dict for all of them, as long as none of the request's stands there twice.
        self._by_name: dict[bytes, bytes] = dict(scope["headers"])
        self._repeated = len(self._by_name) != len(scope["headers"])

    @property
    def path(self) -> str:
        """The path as it was sent, without query (percent-encoding kept)."""
        raw = self.scope.get("raw_path")
        sent: bytes = raw or quote(self.scope["path"]).encode()
        return sent.decode("ascii", "replace")

    def headers(self, name: bytes) -> list[bytes]:
        """All values of a header; `name` in lower case."""
        if self._repeated:
            return [value for key, value in self.scope["headers"] if key == name]
        value = self._by_name.get(name)
        return [] if value is None else [value]

    def header(self, name: bytes) -> str | None:
        """The one value of a header, or `None`. Raises `InvalidRequest` for two."""
        value = self._by_name.get(name)
        if value is None:
            return None
        if self._repeated and len(self.headers(name)) > 1:
            raise InvalidRequest("this header may stand there only once", field=name.decode())
        return value.decode("latin-1")

    def require_type(self, expected: bytes) -> None:
        """Raises `UnsupportedMediaType` unless the body is of this type (and, if it says so, UTF-8)."""
        values = self.headers(b"content-type")
        if values == [expected]:
            return
        if len(values) == 1:
            kind, _, parameters = values[0].lower().partition(b";")
            if kind.strip() == expected and parameters.strip() in {b"", b"charset=utf-8", b'charset="utf-8"'}:
                return
        raise UnsupportedMediaType(f"send the body as Content-Type: {expected.decode()}", field="Content-Type")

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `TooLarge`, `InvalidRequest`, `ClientGoneError`."""
        length = self.header(b"content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS):
                raise InvalidRequest("Content-Length is not a length", field="Content-Length")
            if int(length) > limit:
                raise TooLarge(f"the body is over {limit} bytes")
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body is over {limit} bytes")
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@dataclass(slots=True)
class Answer:
    """What goes back. `cache`: the one `Cache-Control` header. The body may be a credential."""

    status: int
    body: bytes = field(repr=False)
    media_type: bytes = JSON
    headers: Headers = field(default_factory=list)
    cache: tuple[bytes, bytes] = NO_STORE

    async def send(self, send: Send, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with the headers that every answer carries."""
        headers = [
            (b"content-type", self.media_type),
            (b"content-length", str(len(self.body)).encode()),
            self.cache,
            *SECURITY_HEADERS,
            *self.headers,
            *extra,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(
    value: Any,  # noqa: ANN401 - any JSON value
    *,
    status: int = 200,
    headers: Headers | None = None,
    media_type: bytes = JSON,
) -> Answer:
    """A JSON answer."""
    return Answer(status, _encode(value), media_type, headers or [])
