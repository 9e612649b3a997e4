"""Where key sets come from: a configured URL, the discovery document of a configured issuer, or a file.

Rules:
* Every address is configuration, or stands in the document that the configured issuer serves about itself and that
  names this very issuer (OpenID Connect Discovery §4.3). Nothing of a token is ever an address.
* https, with the certificate authorities of `ca_file` if there is one; http on loopback only. A document that came by
  https cannot lead to http. Redirects, compressed bodies, proxies of the environment: none.
* All of a fetch is over after 5 s, however slowly it drips, and an answer has at most 512 KiB.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from stepgrant import _http
from stepgrant.canonical import CanonicalError, loads
from stepgrant.errors import ConfigurationError, StepgrantError
from stepgrant_broker.identity.key_source import Fetch, Fetched, FetchFailed

MAX_BYTES: Final = 524_288
TIMEOUT_S: Final = 5.0
DISCOVERY: Final = "/.well-known/openid-configuration"
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)


def trusted_authorities(ca_file: Path | None) -> ssl.SSLContext:
    """The certificates to check servers with. Raises `OSError` (`ssl.SSLError` is one) for a file that holds none."""
    return ssl.create_default_context(cafile=ca_file) if ca_file is not None else httpx.create_ssl_context()


def from_url(url: str, tls: ssl.SSLContext, *, timeout_s: float = TIMEOUT_S) -> Fetch:
    """Fetch the set at this address. Raises `ConfigurationError` for one that keys may not come from."""
    _http.safe_url(url)

    async def fetch() -> Fetched:
        async with _deadline(timeout_s), _client(tls, timeout_s) as client:
            return await _get(client, url)

    return _named(fetch)


def from_discovery(issuer: str, tls: ssl.SSLContext, *, timeout_s: float = TIMEOUT_S) -> Fetch:
    """Fetch the set that the issuer's discovery document names. Raises `ConfigurationError` as `from_url`."""
    _http.safe_url(issuer)
    address = issuer.removesuffix("/") + DISCOVERY

    async def fetch() -> Fetched:
        async with _deadline(timeout_s), _client(tls, timeout_s) as client:
            described = (await _get(client, address)).document
            if described.get("issuer") != issuer:
                raise FetchFailed("its discovery document names another issuer than the trust file")
            return await _get(client, _next_address(issuer, described.get("jwks_uri")))

    return _named(fetch)


def from_file(path: Path) -> Fetch:
    """Read the set from a file, again and again."""

    async def fetch() -> Fetched:
        try:
            data = await asyncio.to_thread(_read, path)
        except OSError as error:
            raise FetchFailed(f"{path} cannot be read: {error.strerror}") from None
        return Fetched(_object(data))

    return fetch


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _object(data: bytes) -> Mapping[str, object]:
    if len(data) > MAX_BYTES:
        raise FetchFailed(f"more than {MAX_BYTES} bytes")
    try:
        value = loads(data, max_bytes=MAX_BYTES)
    except CanonicalError as error:
        raise FetchFailed(f"not strict JSON ({error.code})") from None
    if not isinstance(value, dict):
        raise FetchFailed("not a JSON object")
    return value


def _next_address(issuer: str, uri: object) -> str:
    if not isinstance(uri, str):
        raise FetchFailed("its discovery document has no jwks_uri")
    try:
        _http.safe_url(uri)
    except ConfigurationError:
        raise FetchFailed("its discovery document has a jwks_uri that is neither https nor on loopback") from None
    if issuer.startswith("https:") and not uri.startswith("https:"):
        raise FetchFailed("its discovery document leads from https to http")
    return uri


async def _get(client: httpx.AsyncClient, url: str) -> Fetched:
    answer = await _http.asend(client, client.build_request("GET", url), max_bytes=MAX_BYTES)
    if answer.status in _REDIRECTS:
        raise FetchFailed(f"HTTP {answer.status} from {url}: redirects are not followed; configure where it leads")
    if answer.status != _OK:
        raise FetchFailed(f"HTTP {answer.status} from {url}")
    found = _MAX_AGE.search(answer.headers.get("cache-control", "").lower())
    return Fetched(_object(answer.body), int(found[1]) if found else None)


def _client(tls: ssl.SSLContext, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=tls, trust_env=False, timeout=timeout_s, follow_redirects=False)


def _deadline(timeout_s: float) -> asyncio.Timeout:
    return asyncio.timeout(timeout_s)


def _named(fetch: Fetch) -> Fetch:
    async def named() -> Fetched:
        try:
            return await fetch()
        except TimeoutError:
            raise FetchFailed("no whole answer in time") from None
        except StepgrantError as error:
            raise FetchFailed(str(error)) from None

    return named
