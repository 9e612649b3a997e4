"""One capped HTTP call, sync and async: what comes back is bytes of known size or one of our errors.

Used where the SDK talks to a broker or fetches its keys. Redirects are never followed: a token or an answer belongs to
the configured address and to no other. Compressed bodies are refused: a small one could unfold without end.

httpx is loaded by whoever makes a client of it. An agent's steps go over `_http1`, and each of its lives would pay for
the import: two fifths of what the SDK loaded to start.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import SplitResult, urlsplit

from stepgrant._errors import BrokerError, BrokerUnavailable, ConfigurationError
from stepgrant.canonical import CanonicalError, JsonValue, loads

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_ANSWER_BYTES: Final = 262_144
# What parsers read in different ways is in no URL of ours: blanks, control characters, backslashes, other alphabets.
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, which may hold a credential. `headers` have names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an answer of the broker can be neither pickled nor copied")

    def members(self) -> Mapping[str, JsonValue]:
        """The body as a JSON object, read strictly; `{}` for anything else."""
        try:
            value = loads(self.body, max_bytes=len(self.body))
        except CanonicalError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def retry_after(self) -> float | None:
        """The `Retry-After` header in seconds; None where it is missing or a date."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdecimal() and len(text) < 8 else None  # noqa: PLR2004

    @property
    def nonce(self) -> str | None:
        """A new DPoP nonce, which any answer may bring (RFC 9449 §8.2)."""
        value: str | None = self.headers.get("dpop-nonce")
        return value


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in small letters; one that stands more than once as RFC 9110 §5.3 joins it."""
    found: dict[str, str] = {}
    for raw, value in pairs:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def send(client: httpx.Client, request: httpx.Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Answer:
    """Raises `BrokerUnavailable` if there is no answer, `BrokerError` (answer_too_large) if it has no end."""
    import httpx  # noqa: PLC0415 - see above

    request.headers["accept-encoding"] = "identity"
    try:
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            _check_encoding(response)
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                _check_size(body, max_bytes, response.status_code)
        finally:
            response.close()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(request, error) from None
    return Answer(response.status_code, headers_of(response.headers.raw), bytes(body))


async def asend(client: httpx.AsyncClient, request: httpx.Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Answer:
    """The async twin of `send`."""
    import httpx  # noqa: PLC0415 - see above

    request.headers["accept-encoding"] = "identity"
    try:
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            _check_encoding(response)
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                _check_size(body, max_bytes, response.status_code)
        finally:
            await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(request, error) from None
    return Answer(response.status_code, headers_of(response.headers.raw), bytes(body))


def _check_encoding(response: httpx.Response) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BrokerError(code="answer_encoded", status=response.status_code, detail="a compressed answer")


def _check_size(body: bytearray, max_bytes: int, status: int) -> None:
    if len(body) > max_bytes:
        raise BrokerError(code="answer_too_large", status=status, detail=f"more than {max_bytes} bytes")


def _unreachable(request: httpx.Request, error: Exception) -> BrokerUnavailable:
    # `from None` above, and the type only: an httpx exception holds the request, and with it token and proof.
    return BrokerUnavailable(detail=f"{request.method} {request.url.copy_with(query=None)}: {type(error).__name__}")


def authorities() -> ssl.SSLContext:
    """Whom TLS trusts: the file or folder that `SSL_CERT_FILE` or `SSL_CERT_DIR` names, else certifi's list.

    The rest of the environment (proxies, .netrc) is not asked. Raises `ConfigurationError` for a file that holds none.
    """
    import httpx  # noqa: PLC0415 - 0.1 s that only https needs

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "certifi")
        why = error.strerror or type(error).__name__
        raise ConfigurationError(f"{named}: no certificates of authorities can be read from it ({why})") from None


def safe_url(url: str) -> str:
    """The URL, if keys or tokens may travel to it: https, or http on loopback. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url) if _PLAIN.fullmatch(url) else None
        host, _ = (parts.hostname, parts.port) if parts else (None, None)
    except (ValueError, TypeError):
        raise ConfigurationError("not a URL") from None
    if parts is None:
        raise ConfigurationError("not a URL: it has blanks or characters beyond ASCII")
    if not host or "@" in parts.netloc or not (parts.scheme == "https" or (parts.scheme == "http" and _local(parts))):
        raise ConfigurationError("the URL must be https, or http on loopback, without user information")
    return url


def _local(parts: SplitResult) -> bool:
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
