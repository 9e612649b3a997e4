"""The broker's public keys: given once (`StaticKeys`), or fetched, remembered and renewed (`JwksSource`).

Rules:

* Keys come from the configured address only; nothing inside a token says where to look.
* A set is good for its `max-age`, held between 5 minutes and 24 hours. An unknown `kid` is worth one more fetch, at
  most every 30 s, or anybody could make this server flood the broker.
* If fetching fails, the last good set serves for up to 24 hours; after that nothing verifies.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from stepgrant import _http
from stepgrant._errors import ConfigurationError, StepgrantError
from stepgrant._keys import JoseError, VerifyingKey, verifying_key
from stepgrant._verification_errors import InvalidToken, VerificationUnavailable

if TYPE_CHECKING:
    import httpx

MIN_TTL_S: Final = 300
MAX_TTL_S: Final = 86_400
REFETCH_FLOOR_S: Final = 30
RETRY_FLOOR_S: Final = 5
MAX_JWKS_BYTES: Final = 524_288
MAX_KEYS: Final = 100
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")
_OK: Final = 200


class KeySource(Protocol):
    """Finds the broker's public key by `kid`."""

    def find_sync(self, kid: str) -> VerifyingKey:
        """Raises `InvalidToken` (unknown_key), or `VerificationUnavailable` if the keys are out of reach."""
        ...

    async def find(self, kid: str) -> VerifyingKey:
        """The async twin."""
        ...


def read_jwks(document: Mapping[str, object]) -> Mapping[str, VerifyingKey]:
    """The usable keys of a JWKS (RFC 7517 §5) by `kid`; keys of other kinds are left out, as the RFC says.

    Raises ValueError if it is no JWKS, or two different keys share a `kid`.
    """
    entries = document.get("keys")
    if not isinstance(entries, (list, tuple)) or len(entries) > MAX_KEYS:
        raise ValueError(f"not a JWKS of at most {MAX_KEYS} keys")
    found: dict[str, VerifyingKey] = {}
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, Mapping) else None
        if not isinstance(kid, str):
            continue
        try:
            key = verifying_key(entry)
        except JoseError:
            continue
        if found.setdefault(kid, key) != key:
            raise ValueError("two keys with one kid")
    return MappingProxyType(found)


def _unknown(kid: str) -> InvalidToken:
    return InvalidToken(f"no key of the issuer has the kid {kid[:64]!r}", reason="unknown_key")


class StaticKeys:
    """A JWKS document that does not change; for tests, and where keys are rolled out with the server."""

    def __init__(self, document: Mapping[str, object]) -> None:
        try:
            self._keys = read_jwks(document)
        except ValueError as error:
            raise ConfigurationError(f"the keys are no usable JWKS: {error}") from None
        if not self._keys:
            raise ConfigurationError("the JWKS has no usable key: ES256 on P-256 or EdDSA on Ed25519, with a kid")

    def find_sync(self, kid: str) -> VerifyingKey:
        """As `KeySource`."""
        key = self._keys.get(kid)
        if key is None:
            raise _unknown(kid)
        return key

    async def find(self, kid: str) -> VerifyingKey:
        """As `KeySource`."""
        return self.find_sync(kid)


@dataclass(slots=True)
class _Cache:
    """What is known, and whether to fetch now; no socket. Times in seconds of a monotonic clock."""

    keys: Mapping[str, VerifyingKey]
    fetched_at: float = float("-inf")
    good_until: float = float("-inf")
    tried_at: float = float("-inf")

    def wants_fetch(self, kid: str, now: float) -> bool:
        if now < self.good_until and kid in self.keys:
            return False
        floor = REFETCH_FLOOR_S if now < self.good_until else RETRY_FLOOR_S
        return now >= self.tried_at + floor

    def take(self, answer: _http.Answer, now: float) -> None:
        if answer.status != _OK:
            raise ValueError(f"HTTP {answer.status}")
        self.keys = read_jwks(answer.members())
        found = _MAX_AGE.search(answer.headers.get("cache-control", "").lower())
        ttl = int(found[1]) if found else MIN_TTL_S
        self.fetched_at, self.good_until = now, now + min(max(ttl, MIN_TTL_S), MAX_TTL_S)

    def find(self, kid: str, now: float) -> VerifyingKey:
        if now > self.fetched_at + MAX_TTL_S:
            raise VerificationUnavailable(
                "the broker's keys cannot be fetched", reason="keys_unavailable", retry_after=RETRY_FLOOR_S
            )
        key = self.keys.get(kid)
        if key is None:
            raise _unknown(kid)
        return key


class JwksSource:
    """The broker's keys from `url` (its `/.well-known/jwks.json`): https, or http on loopback.

    Args:
        url: the address.
        client: for sync use; by default one is made per fetch. Of the environment it takes `SSL_CERT_FILE`, no proxies.
        async_client: for async use; likewise.
        timeout_s: of one fetch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
        timeout_s: float = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = _http.safe_url(url)
        self._client = client
        self._async_client = async_client
        self._timeout_s = timeout_s
        self._clock = clock
        self._cache = _Cache(MappingProxyType({}))
        self._lock = threading.Lock()
        self._async_lock = asyncio.Lock()

    def find_sync(self, kid: str) -> VerifyingKey:
        """As `KeySource`. Threads wait for one fetch instead of each making its own."""
        if self._cache.wants_fetch(kid, self._clock()):
            with self._lock:
                if self._cache.wants_fetch(kid, self._clock()):
                    self._fetch_sync()
        return self._cache.find(kid, self._clock())

    async def find(self, kid: str) -> VerifyingKey:
        """As `KeySource`. Tasks wait for one fetch instead of each making its own."""
        if self._cache.wants_fetch(kid, self._clock()):
            async with self._async_lock:
                if self._cache.wants_fetch(kid, self._clock()):
                    await self._fetch()
        return self._cache.find(kid, self._clock())

    def _fetch_sync(self) -> None:
        import httpx  # noqa: PLC0415 - 0.1 s that a server with `StaticKeys`, and the broker, need not wait

        client = self._client or httpx.Client(verify=_http.authorities(), trust_env=False, timeout=self._timeout_s)
        try:
            self._take(_http.send(client, self._request(client), max_bytes=MAX_JWKS_BYTES))
        except StepgrantError:
            return  # the cache decides whether the last good set still serves
        finally:
            # Not before: who asks meanwhile must wait for this fetch, not go without keys.
            self._cache.tried_at = self._clock()
            if client is not self._client:
                client.close()

    async def _fetch(self) -> None:
        import httpx  # noqa: PLC0415 - as above

        client = self._async_client or httpx.AsyncClient(
            verify=_http.authorities(), trust_env=False, timeout=self._timeout_s
        )
        try:
            self._take(await _http.asend(client, self._request(client), max_bytes=MAX_JWKS_BYTES))
        except StepgrantError:
            return  # as above
        finally:
            self._cache.tried_at = self._clock()
            if client is not self._async_client:
                await client.aclose()

    def _request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return client.build_request("GET", self._url, timeout=self._timeout_s)

    def _take(self, answer: _http.Answer) -> None:
        try:
            self._cache.take(answer, self._clock())
        except ValueError:
            return  # nonsense is no key set; as if it had not come
