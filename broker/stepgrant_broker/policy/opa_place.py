"""Where an OPA is, how the broker proves itself to it, and how much of it the broker takes.

Rules:
* The token is read from its file for each new connection, so that a rotated one is taken over. It stands in no
  argument, log, exception or repr.
* TLS is 1.2 or newer, and the name in the certificate is checked; no setting turns that off.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

MAX_TOKEN_BYTES: Final = 16_384
PORTS: Final = {"http": 80, "https": 443}


class OpaFailed(Exception):
    """No answer came of this question: `str()` says why and quotes nothing of question, answer or token."""


class OpaBusy(OpaFailed):
    """Too many questions wait already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`in_flight` questions at once, `waiting` more in line, `answer_bytes` of one answer's body."""

    in_flight: int = 16
    waiting: int = 256
    answer_bytes: int = 65_536 + 4_096


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where an OPA listens: `https://host:port`, `http://host:port` (loopback), or `unix:///path`."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("https:")

    @property
    def socket(self) -> str | None:
        """The socket's path, if it is one."""
        return urlsplit(self.url).path if self.url.startswith("unix:") else None

    @property
    def host(self) -> str:
        """The host's name; for a socket, the name that stands in the `Host` header."""
        return "localhost" if self.socket is not None else urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        parts = urlsplit(self.url)
        return PORTS["http"] if self.socket is not None else parts.port or PORTS[parts.scheme]

    def tls_context(self) -> ssl.SSLContext | None:
        """For `https`: the CA of `ca_file`, else the system's. Raises `OpaFailed`."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file is not None else None)
        except (OSError, ssl.SSLError) as error:
            raise OpaFailed(f"{self.ca_file} cannot be read as PEM certificates ({why(error)})") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def authorization(self) -> bytes:
        """The header line with the token that is in its file now, or nothing. Raises `OpaFailed`."""
        if self.token_file is None:
            return b""
        try:
            with self.token_file.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except OSError as error:
            raise OpaFailed(f"the token of OPA, {self.token_file}, cannot be read ({error.strerror})") from None
        if not token or len(token) > MAX_TOKEN_BYTES or any(not 0x21 <= byte <= 0x7E for byte in token):  # noqa: PLR2004
            raise OpaFailed(f"{self.token_file} holds no bearer token: one word of visible ASCII is needed")
        return b"Authorization: Bearer " + token + b"\r\n"


def why(error: Exception) -> str:
    """The system's word for it: `str()` of a TLS error names what the peer sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    return getattr(error, "strerror", None) or type(error).__name__
