"""One HTTP/1.1 exchange without a socket (h11), so that the blocking and the asyncio client read answers alike.

Why not `httpx` here: a guarded step is two small calls, and `httpx.Client` costs 530 us of CPU for each,
`httpx.AsyncClient` 1,200; this costs 120 and 200.

Rules: one exchange at a time on a connection; a body has a limit; compressed answers are not asked for; redirects are
not followed (a token belongs to the configured address).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

import h11

from stepgrant._http import Answer, headers_of

MAX_ANSWER_BYTES: Final = 4_194_304
ENDLESS: Final = "the answer has no end"
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is path and query; `headers` are without `Host` and `Content-Length`. `timeout` is in seconds.

    `most`: an answer with more bytes than this has no end.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    timeout: float
    most: int = MAX_ANSWER_BYTES

    def __repr__(self) -> str:
        """Masked: headers hold the token, the body arguments and results."""
        return f"Request({self.method.decode()} {self.target.decode()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a request with its token can be neither pickled nor copied")


class Broken(Exception):
    """The exchange did not end: the peer closed, or what came is no HTTP. The connection is of no more use."""


class Exchanges:
    """The exchanges of one connection: bytes to send, bytes that came, and whether it can be used again."""

    def __init__(self, host: bytes) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        self._host = host
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._most = MAX_ANSWER_BYTES

    def start(self, request: Request) -> bytes:
        """The bytes of the next request."""
        connection = self._connection
        if connection.our_state is not h11.IDLE:
            connection.start_next_cycle()
        self._head, self._body, self._most = None, bytearray(), request.most
        length = b"%d" % len(request.body)
        headers = [(b"host", self._host), *request.headers, (b"content-length", length)]
        head = connection.send(h11.Request(method=request.method, target=request.target, headers=headers))
        return head + connection.send(h11.Data(data=request.body)) + connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> Answer | None:
        """Take what came (`b""`: the peer closed). The answer once it is whole. Raises `Broken`."""
        connection = self._connection
        try:
            connection.receive_data(data)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > self._most:
                        raise Broken(ENDLESS)
                elif isinstance(event, h11.EndOfMessage):
                    return self._answer()
                elif not isinstance(event, h11.InformationalResponse):
                    raise Broken("the peer closed the connection")
        except h11.RemoteProtocolError as error:
            raise Broken(f"not an HTTP/1.1 answer (status {error.error_status_hint})") from None

    def _answer(self) -> Answer:
        if self._head is None:
            raise Broken("an end without a beginning")
        return Answer(self._head.status_code, headers_of(self._head.headers), bytes(self._body))

    @property
    def reusable(self) -> bool:
        """Whether both sides are ready for another exchange."""
        return self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE
