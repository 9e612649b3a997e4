"""The broker as people call it: HTTP with an operator token, one method for each kind of call.

Rules: the token is in the `Authorization` header and nowhere else; redirects are never followed and proxies of the
environment not used; every changing call has a fresh Idempotency-Key; what is no success becomes the SDK's error for
that problem (`stepgrant.errors`).

It goes over the connection that agents use (`_client`): to load and set up `httpx` took half of such a command's CPU.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from stepgrant._client import Address, BlockingClient, Unreachable
from stepgrant._http import Answer
from stepgrant._http1 import ENDLESS, Headers, Request
from stepgrant.cli.client_file import Client
from stepgrant.cli.exits import CommandError
from stepgrant.errors import BrokerError, from_problem

TIMEOUT_S: Final = 30
"""Of a whole call."""
LONG_S: Final = 600
"""Of a call whose answer holds a whole run."""
MAX_ANSWER_BYTES: Final = 268_435_456
"""A receipt holds a whole run."""
PAGE: Final = 200
_OK: Final = range(200, 300)
_UNAUTHENTICATED: Final = 401


class People:
    """A connection for one command. Use it as a context manager."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._address = Address.of(client.url)
        self._http = BlockingClient(self._address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, *, timeout_s: float = TIMEOUT_S, **query: object) -> dict[str, Any]:
        """Read. Query members that are None are left out. Raises the errors of `stepgrant.errors`."""
        return self._read(path, query, timeout_s)

    def _read(self, path: str, query: Mapping[str, object], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        wanted = {name: _text(value) for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(wanted)}" if wanted else path, timeout_s=timeout_s)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Change something, once."""
        return self._call("POST", path, body=body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set something by its name."""
        return self._call("PUT", path, body=body)

    def delete(self, path: str) -> dict[str, Any]:
        """Remove something by its id."""
        return self._call("DELETE", path)

    def pages(self, path: str, member: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every row of a list, page by page."""
        after: object = query.pop("after", None)
        while True:
            page = self._read(path, {"limit": PAGE, **query, "after": after})
            yield from page.get(member, [])
            after = page.get("next")
            if after is None:
                return

    def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.client.token}", "accept": "application/json"}
        content = b""
        if method != "GET":
            headers["idempotency-key"] = secrets.token_urlsafe(18)
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        answer = self._answer(method, path, headers, content, timeout_s)
        if answer.status not in _OK:
            raise self._refusal(answer)
        if not answer.body:
            return {}
        members = answer.members()
        if not members:
            raise BrokerError(code="unexpected_answer", status=answer.status, detail=f"no JSON object from {path}")
        return dict(members)

    def _answer(self, method: str, path: str, headers: Mapping[str, str], content: bytes, timeout_s: float) -> Answer:
        """Raises `CommandError` when nobody answers, or without end."""
        sent: Headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        sent.append((b"accept-encoding", b"identity"))
        target = (self._address.path + path).encode("ascii")
        request = Request(method.encode("ascii"), target, sent, content, timeout_s, MAX_ANSWER_BYTES)
        answer = self._http.send(request)
        if isinstance(answer, Unreachable) and answer.stale:
            # While a person thought about a question. The same key goes with it, so nothing is done twice.
            answer = self._http.send(request)
        if isinstance(answer, Answer):
            return answer
        if answer.why == ENDLESS:
            raise CommandError(f"an answer of more than {MAX_ANSWER_BYTES} bytes", code="answer_too_large")
        raise CommandError(
            f"no answer from the broker at {self.client.url} ({answer.why}); is it running?", code="broker_unavailable"
        )

    def _refusal(self, answer: Answer) -> Exception:
        members = answer.members()
        if answer.status == _UNAUTHENTICATED:
            return CommandError(
                f"the broker at {self.client.url} does not know the token of {self.client.source}; "
                "an operator makes a new one with `stepgrant operator create`",
                code="invalid_token",
            )
        return from_problem(answer.status, members, retry_after=answer.retry_after)


def segment(text: str) -> str:
    """One part of a path. Raises `CommandError` for what no name of the broker holds."""
    if not text or not text.isprintable() or text in {".", ".."} or len(text) > 512:  # noqa: PLR2004
        raise CommandError("a name or id is printable text")
    return quote(text, safe="~:@")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
