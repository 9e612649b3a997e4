"""Requests as bytes: written once by a workload, and sent as often as a test likes, at any broker, all at once.

A letter holds a token and one proof, so sending it again is what a thief, a proxy or an impatient client would do. What
differs between letters of one call is said when they are written: the Idempotency-Key, the body, or only the proof.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from faults.forks import NO_TLS
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey

ABREAST: Final = 64
OK: Final = 200
ANSWER_S: Final = 60.0
_numbers = itertools.count()


@dataclass(frozen=True)
class Letter:
    """One request. `headers` hold its token and proof."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes

    def but(self, body: object = None, **headers: str) -> Letter:
        """The same proof on something else."""
        content = self.body if body is None else json.dumps(body).encode()
        return replace(self, body=content, headers={**self.headers, **headers})


@dataclass(frozen=True)
class Reply:
    """What came back. `code`: of the problem; empty for an answer. `status` 0: nothing came back."""

    status: int
    members: Mapping[str, Any]

    @property
    def code(self) -> str:
        return "" if self.status == OK else str(self.members.get("code", self.status))


class Writer:
    """One process of a workload. `url`: what its proofs are for."""

    def __init__(self, url: str, key_file: Path) -> None:
        self._url = url
        self._request = TokenRequest(url, WorkloadKey.load(key_file), DpopKey())
        self._token = ""
        self._nonce: str | None = None

    def exchange(self, door: str) -> Self:
        """Get an access token through this door."""
        with httpx.Client(base_url=door, verify=NO_TLS, timeout=ANSWER_S, trust_env=False) as client:
            while True:
                now, known = time.time(), self._nonce
                form, headers = self._request.form(now), self._request.headers(self._nonce, now)
                answer = client.post("/oauth/token", data=form, headers=headers)
                self._nonce = answer.headers.get("dpop-nonce", self._nonce)
                if answer.status_code == OK:
                    self._token = answer.json()["access_token"]
                    return self
                if self._nonce == known:
                    raise RuntimeError(answer.text)

    def write(
        self, path: str, body: object = None, *, key: str | None = None, method: str = "POST", iat: float | None = None
    ) -> Letter:
        """A letter with a fresh proof, by default with a new Idempotency-Key and made now."""
        made = self._request.dpop.proof(method, self._url + path, token=self._token, nonce=self._nonce, now=iat)
        headers = {"authorization": f"DPoP {self._token}", "dpop": made, "content-type": "application/json"}
        if method == "POST":
            headers["idempotency-key"] = key or self.new_key()
        return Letter(method, path, headers, b"" if body is None else json.dumps(body).encode())

    @staticmethod
    def new_key() -> str:
        """An Idempotency-Key that nobody had."""
        return f"letter-{next(_numbers)}-{time.monotonic_ns()}"


class Post:
    """Sends letters; all its methods may be called from any thread."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=ABREAST, max_keepalive_connections=ABREAST)
        self._client = httpx.Client(verify=NO_TLS, timeout=ANSWER_S, trust_env=False, limits=limits)
        self._pool = ThreadPoolExecutor(ABREAST)

    def send(self, door: str, letter: Letter) -> Reply:
        """Send it once."""
        request = self._client.build_request(
            letter.method, door + letter.path, content=letter.body, headers=dict(letter.headers)
        )
        try:
            answer = self._client.send(request)
        except httpx.TransportError:
            return Reply(0, {})
        return Reply(answer.status_code, answer.json())

    def send_all(self, doors: Sequence[str], letters: Iterable[Letter]) -> list[Reply]:
        """Send all of them at once, at each door in turn."""
        return list(self._pool.map(self.send, itertools.cycle(doors), letters))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._client.close()
