"""opa-python-client's `AsyncOpaClient` with our own connections below it.

Why: its interface knows OPA's API, but its transport retries by itself, reads answers without limit, has no CA file and
no sockets, and costs the broker 0.3 to 0.5 ms of CPU for each decision. So paths and calls are the library's, and bytes
are `opa_http`'s.

Rules:
* No retries: the caller's deadline is the only patience, and a question that failed is asked again by who wants it.
* Answers are read strictly (`canonical.loads`): duplicate keys, NaN and the like are errors.
* An input is bytes that were made by `canonical.dumps`; it goes out as it is, without being read and written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opa_client import AsyncOpaClient

from stepgrant import canonical
from stepgrant_broker.policy.opa_http import OK, Pool
from stepgrant_broker.policy.opa_place import OpaFailed, Place, Reply

PACKAGE: Final = "stepgrant"
RULE: Final = "decision"
PROVENANCE: Final[Mapping[str, str]] = {"provenance": "true"}
MAX_DEPTH: Final = 24
"""A decision has 16 levels at most; it stands two levels down in OPA's answer."""


class OpaStatus(OpaFailed):
    """OPA answered with another status than 200; `reply` is the whole answer and may quote the input."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"OPA answered with status {reply.status}")
        self.reply = reply


class _Response:
    """What the library expects of aiohttp's response."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.status = reply.status

    async def release(self) -> None:
        """Nothing is held."""

    def raise_for_status(self) -> None:
        """Raises `OpaStatus`."""
        if self.status != OK:
            raise OpaStatus(self._reply)

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The answer. Raises `OpaFailed`."""
        try:
            return canonical.loads(self._reply.body, max_depth=MAX_DEPTH)
        except canonical.CanonicalError as error:
            raise OpaFailed(f"OPA's answer cannot be read ({error.code})") from None


class _Session:
    """What the library expects of aiohttp's session."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lines: dict[tuple[str, str], bytes] = {}
        self.closed = False

    async def request(self, method: str, url: str, *, json: Mapping[str, bytes] | None = None) -> _Response:
        """One call. `json` is `{"input": bytes of JSON}` or nothing."""
        line = self._lines.get((method, url))
        if line is None:
            parts = urlsplit(url)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            line = self._lines[method, url] = f"{method} {target}".encode("ascii")
        body = b"" if json is None else b'{"input":%b}' % json["input"]
        return _Response(await self._pool.exchange(line, body))

    async def close(self) -> None:
        """Close the connections."""
        self.closed = True
        self._pool.close()


class OpaClient(AsyncOpaClient):  # type: ignore[misc]  # the library has no types
    """The library's client for the OPA at `place`; `token` and TLS are the pool's business."""

    def __init__(self, place: Place, pool: Pool) -> None:
        host = f"[{place.host}]" if ":" in place.host else place.host
        super().__init__(host=host, port=place.port, ssl=place.tls, retries=0)
        self._session = _Session(pool)

    async def _init_session(self) -> None:
        """Ours is there from the beginning; the library must not put its own in place."""

    async def decide(self, policy_input: bytes) -> Any:  # noqa: ANN401 - any JSON value
        """OPA's whole answer about `data.stepgrant.decision`, with its provenance. Raises `OpaFailed`."""
        return await self.query_rule(policy_input, PACKAGE, RULE, query_params=PROVENANCE)
