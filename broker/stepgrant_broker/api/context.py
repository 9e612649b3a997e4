"""What the routes work with, put together once by `create_app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from stepgrant._dpop import normal_url
from stepgrant_broker.api.access import AccessTokens
from stepgrant_broker.api.auth import Callers
from stepgrant_broker.api.health import Health
from stepgrant_broker.api.metrics import Metrics
from stepgrant_broker.api.token import Exchange
from stepgrant_broker.usecases.context import Ports


class MakeReceipt(Protocol):
    """Makes receipts."""

    def __call__(self, tenant: str, run: str, *, scope: tuple[str, str] | None = None) -> Awaitable[dict[str, Any]]:
        """The receipt of a run, or of ("step", key) or ("grant", jti) in it. Raises `UnknownRun`, `NotFound`."""


class Log(Protocol):
    """The log over all chains, as anybody may read it."""

    async def continues(self) -> None:
        """Raises `StoreRolledBack` if the store lost, under this broker, what was seen of its log."""

    async def head(self) -> bytes | None:
        """The newest signed head that counts, as a signed note; None before the first one."""

    async def vkeys(self) -> list[str]:
        """The log's verifier keys, newest first, a line each."""

    async def tile(self, path: str) -> bytes | None:
        """The tile at this path; None if the tree has none such (yet). Raises `TileInvalid`."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the HTTP face needs to know.

    `public_url`: how clients reach the broker; proofs are checked against it, so behind a proxy it is the proxy's.
    `max_body_bytes`: the largest body of a request. `exchange_burst` and `exchange_per_s`: how many token exchanges one
    workload may make at once and in the long run.
    """

    public_url: str
    max_body_bytes: int = 1_048_576
    exchange_burst: int = 100
    exchange_per_s: float = 10.0

    def __post_init__(self) -> None:
        normal_url(self.public_url)
        parts = urlsplit(self.public_url)
        if self.public_url.endswith("/") or parts.query or parts.fragment:
            raise ValueError("public_url has no slash at its end, no query and no fragment")


@dataclass(frozen=True, slots=True)
class Api:
    """The ports behind the routes, and what belongs to HTTP alone."""

    ports: Ports
    settings: ApiSettings
    tokens: AccessTokens
    callers: Callers
    exchange: Exchange
    health: Health
    metrics: Metrics
    make_receipt: MakeReceipt
    log: Log
    description: Callable[[], bytes]
    """The OpenAPI document as JSON."""
