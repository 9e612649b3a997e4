"""`Auth`: the current step's credential on every request of an `httpx` client.

    with httpx.Client(auth=stepgrant.http.Auth()) as client:
        client.post("https://erp.example/invoices", json=...)

Rules:
* The credential is looked up when a request is sent, so one client may serve many steps; outside of a step it refuses.
* Each hop is checked before it is sent, also those of redirects, which httpx would send with all headers but
  `Authorization`: a static secret in a header of its own would go to wherever the redirect points.
* An `Idempotency-Key` that the request has already stays: a tool with several requests names its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final

import httpx

from stepgrant._context import current_credential
from stepgrant.credential import Credential

__all__ = ["Auth"]

_UNAUTHORIZED: Final = 401


class Auth(httpx.Auth):
    """For `auth=` of httpx, sync and async.

    Args:
        credential: by default the one of the step in which the request is sent.

    Raises, when a request is sent:
        CredentialMisuse: outside of a step, another origin, an expired credential.
    """

    def __init__(self, credential: Credential | None = None) -> None:
        self._credential = credential

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """What a `Client` calls."""
        credential = self._credential or current_credential()
        _authorize(request, credential, None)
        before = request.extensions.get("trace")

        def check_hop(event: str, info: dict[str, Any]) -> None:
            _check_hop(credential, event, info)
            if before is not None:
                before(event, info)

        yield from _proven(request, credential, check_hop)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """What an `AsyncClient` calls."""
        credential = self._credential or current_credential()
        _authorize(request, credential, None)
        before = request.extensions.get("trace")

        async def check_hop(event: str, info: dict[str, Any]) -> None:
            _check_hop(credential, event, info)
            if before is not None:
                await before(event, info)

        flow = _proven(request, credential, check_hop)
        hop = next(flow)
        while True:
            response = yield hop
            try:
                hop = flow.send(response)
            except StopIteration:
                return


def _proven(
    request: httpx.Request, credential: Credential, check_hop: Callable[[str, dict[str, Any]], Awaitable[None] | None]
) -> Generator[httpx.Request, httpx.Response, None]:
    request.extensions["trace"] = check_hop
    response = yield request
    _check_history(credential, response)
    nonce = response.headers.get("DPoP-Nonce")
    if (
        response.status_code == _UNAUTHORIZED
        and nonce
        and "use_dpop_nonce" in response.headers.get("WWW-Authenticate", "")
    ):
        # RFC 9449 section 9: the resource server wants its nonce in the proof.
        _authorize(request, credential, nonce)
        _check_history(credential, (yield request))


def _authorize(request: httpx.Request, credential: Credential, nonce: str | None) -> None:
    for name, value in credential.headers(request.method, str(request.url), nonce=nonce).items():
        if name != "Idempotency-Key" or name not in request.headers:
            request.headers[name] = value


def _check_hop(credential: Credential, event: str, info: dict[str, Any]) -> None:
    """`httpcore` tells its `trace` extension of every request before the first byte of it is sent."""
    if not event.endswith("send_request_headers.started"):
        return
    url = info["request"].url
    host = url.host.decode("ascii")
    shown = f"[{host}]" if ":" in host else host
    port = f":{url.port}" if url.port is not None else ""
    credential.check_origin(f"{url.scheme.decode('ascii')}://{shown}{port}/")


def _check_history(credential: Credential, response: httpx.Response) -> None:
    """For transports that do not tell: too late to stop it, but nobody goes on as if nothing had happened."""
    for hop in (*response.history, response):
        credential.check_origin(str(hop.request.url))
