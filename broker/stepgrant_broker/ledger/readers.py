"""The log as anybody may read it, for whoever checks it: the broker's own answers, in this process or over HTTP.

Whatever a server says that is no answer of a log is `StoreUnavailable`, in one line that names the path: it is neither
followed elsewhere, nor waited for without end, nor taken for an empty log.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from stepgrant._errors import StepgrantError
from stepgrant._http import asend, safe_url
from stepgrant_broker.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    import httpx

MAX_ANSWER: Final = 1_048_576
DEADLINE_S: Final = 30.0
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
    """A broker's log at its URL. Raises `ConfigurationError` for a URL that is neither https nor loopback.

    `deadline_s`: how long one answer may take from its first byte to its last (seconds).
    """

    def __init__(self, url: str, client: httpx.AsyncClient, *, deadline_s: float = DEADLINE_S) -> None:
        self._base = safe_url(url).rstrip("/") + "/v1/log/"
        self._client = client
        self._deadline_s = deadline_s

    async def head(self) -> bytes | None:
        """As `LogReader`."""
        return await self._get("checkpoint")

    async def tile(self, path: str) -> bytes | None:
        """As `LogReader`."""
        return await self._get(path)

    async def vkeys(self) -> list[str]:
        """As `LogReader`; a log without any is none."""
        lines = ((await self._get("keys")) or b"").decode("utf-8", "replace").splitlines()
        if not lines:
            raise StoreUnavailable("the log shows no keys: is it this broker's URL?")
        return lines

    async def _get(self, path: str) -> bytes | None:
        request = self._client.build_request("GET", self._base + path)
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await asend(self._client, request, max_bytes=MAX_ANSWER)
        except TimeoutError:
            raise StoreUnavailable(f"the log gave no whole answer to {path} in {self._deadline_s:g} s") from None
        except StepgrantError as error:
            raise StoreUnavailable(f"the log does not answer {path}: {error}") from None
        if answer.status == _MISSING:
            return None
        if answer.status != _OK:
            raise StoreUnavailable(f"the log answered {answer.status} to {path}")
        return answer.body
