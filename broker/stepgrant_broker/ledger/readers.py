"""The log as anybody may read it, for whoever checks it: the broker's own answers, in this process or over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stepgrant._errors import StepgrantError
from stepgrant._http import asend, safe_url
from stepgrant_broker.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    import httpx

MAX_ANSWER: Final = 1_048_576
_OK: Final = 200
_MISSING: Final = 404


class LogReader(Protocol):
    """The public paths (`ledger.public_log.PublicLog` answers them). All raise `StoreUnavailable`."""

    async def head(self) -> bytes | None:
        """The newest signed head that counts; None before the first one."""

    async def tile(self, path: str) -> bytes | None:
        """The tile at this path; None if there is none."""

    async def vkeys(self) -> list[str]:
        """The log's verifier keys, newest first, a line each."""


class HttpLog:
    """A broker's log at its URL. Raises `ConfigurationError` for a URL that is neither https nor loopback."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._base = safe_url(url).rstrip("/") + "/v1/log/"
        self._client = client

    async def head(self) -> bytes | None:
        """As `LogReader`."""
        return await self._get("checkpoint")

    async def tile(self, path: str) -> bytes | None:
        """As `LogReader`."""
        return await self._get(path)

    async def vkeys(self) -> list[str]:
        """As `LogReader`."""
        return ((await self._get("keys")) or b"").decode("utf-8", "replace").splitlines()

    async def _get(self, path: str) -> bytes | None:
        try:
            answer = await asend(
                self._client, self._client.build_request("GET", self._base + path), max_bytes=MAX_ANSWER
            )
        except StepgrantError as error:
            raise StoreUnavailable(f"the log does not answer: {error}") from None
        if answer.status == _MISSING:
            return None
        if answer.status != _OK:
            raise StoreUnavailable(f"the log answered {answer.status} to {path}")
        return answer.body
