"""The connections to one Vault, in the shape of the session that hvac's adapter works with.

Rules:
* urllib3 alone carries the bytes: `requests` doubles the CPU of a call (0.6 of 1.3 ms, measured) and takes proxies,
  passwords and certificates from the environment. Here nothing of the environment counts.
* No retries, no redirects, no cookies, no compression. TLS with the system's certificates, or only the operator's.
* An answer is read at most to `ANSWER_MAX` bytes and not beyond its deadline, packet by packet. Only a connection whose
  answer was read to its end is used again.
"""

from __future__ import annotations

import json as encoder
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout, connection_from_url

ANSWER_MAX: Final = 1_048_576
CHUNK: Final = 65_536


class AnswerTooLarge(Exception):
    """It is larger than `ANSWER_MAX`."""


class AnswerTooSlow(Exception):
    """It did not end in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the adapter hands through: the answer, not yet read. `ok` keeps hvac from making errors of its own."""

    raw: BaseHTTPResponse
    ok: bool = True

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.raw.status

    def read(self, until: float) -> bytes:
        """The whole body; `until` is a time of the monotonic clock. Raises `AnswerTooLarge`, `AnswerTooSlow`."""
        body = bytearray()
        whole = False
        try:
            while chunk := self.raw.read1(CHUNK, decode_content=False):
                body += chunk
                if len(body) > ANSWER_MAX:
                    raise AnswerTooLarge
                if time.monotonic() >= until:
                    raise AnswerTooSlow
            whole = True
        finally:
            if whole:
                self.raw.release_conn()
            else:
                self.raw.close()
        return bytes(body)


class Connections:
    """At most `most` kept connections; shared by all threads."""

    # Of a session, for hvac: none of them is set, what counts is in the pool.
    verify = None
    cert = None
    proxies = None

    def __init__(self, addr: str, ca_file: Path | None, most: int) -> None:
        self._addr = addr
        self._ca_file = ca_file
        self._most = most
        self._lock = threading.Lock()
        self._pool: HTTPConnectionPool | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: tuple[float, float],
        json: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        **_: object,
    ) -> Reply:
        """Send it. Raises what urllib3 raises, and `OSError` or `ssl.SSLError` for an unusable CA file."""
        sent = {**headers, "Accept-Encoding": "identity"}
        body = None
        if json is not None:
            sent["Content-Type"] = "application/json"
            body = encoder.dumps(json).encode()
        target = url.removeprefix(self._addr) + (f"?{urlencode(params)}" if params else "")
        raw = self._connections().urlopen(
            method, target, body=body, headers=sent, timeout=Timeout(connect=timeout[0], read=timeout[1]),
            retries=False, redirect=False, preload_content=False, decode_content=False,
        )  # fmt: skip
        return Reply(raw)

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()

    def _connections(self) -> HTTPConnectionPool:
        with self._lock:
            if self._pool is None:
                more: dict[str, Any] = {}
                if self._addr.startswith("https:"):
                    more["ssl_context"] = ssl.create_default_context(cafile=self._ca_file)
                self._pool = connection_from_url(self._addr, maxsize=self._most, **more)
            return self._pool
