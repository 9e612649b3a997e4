"""The application: all routes, their description, and what becomes of requests that no route knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepgrant_broker.api import decisions, grants, people, problems, reads, runs, steps, wellknown
from stepgrant_broker.api import log as log_endpoints
from stepgrant_broker.api.access import AccessTokens
from stepgrant_broker.api.auth import Callers, Nonces, Proofs
from stepgrant_broker.api.context import Api, ApiSettings, Log, MakeReceipt
from stepgrant_broker.api.health import Health
from stepgrant_broker.api.limiting import Buckets
from stepgrant_broker.api.messages import NO_STORE, SECURITY_HEADERS
from stepgrant_broker.api.metrics import MeteredStore, Metrics
from stepgrant_broker.api.openapi import document
from stepgrant_broker.api.routing import Endpoint, Served, routes
from stepgrant_broker.api.token import Exchange, Identities
from stepgrant_broker.domain.errors import NotFound, StepgrantFault
from stepgrant_broker.usecases.context import Ports

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Hook: TypeAlias = Callable[[], Awaitable[None]]

TITLE: Final = "Stepgrant broker"
VERSION: Final = "1"
HOT: Final[tuple[Endpoint, ...]] = (*steps.HOT, *runs.HOT, *grants.HOT)
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *HOT,
    *steps.ENDPOINTS,
    *runs.ENDPOINTS,
    *reads.ENDPOINTS,
    *decisions.ENDPOINTS,
    *grants.ENDPOINTS,
    *people.ENDPOINTS,
    *wellknown.ENDPOINTS,
    *log_endpoints.ENDPOINTS,
)


class App(FastAPI):
    """FastAPI, with a straight way to the endpoints that every step calls.

    On this way stand the same routes and nothing else: `Served` renders every fault itself, so the middlewares around
    it would only cost. Whatever is not plainly such a call goes the long way.
    """

    def serve(self, found: Iterable[Route]) -> None:
        """Add these routes."""
        self.router.routes.extend(found)
        hot = {endpoint.path for endpoint in HOT}
        self._hot = {
            _shape(route.path): (route.methods or set(), route.path_regex, cast("Served", route.app))
            for route in self.routes
            if isinstance(route, Route) and route.path in hot
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of ASGI. A coroutine function, because by that servers tell this version of it."""
        if scope["type"] == "http" and not scope.get("root_path"):
            path = scope["path"]
            found = self._hot.get(_shape(path))
            if found is not None:
                methods, pattern, app = found
                if scope["method"] in methods and (named := pattern.match(path)) is not None:
                    scope["path_params"] = named.groupdict()
                    await app(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def _shape(path: str) -> tuple[int, str]:
    """How many segments, and the last of them: enough to tell the hot paths apart."""
    return path.count("/"), path.rpartition("/")[2]


class MethodNotAllowed(StepgrantFault):
    """The path exists, but not with this method."""

    code = "method_not_allowed"


def create_app(
    ports: Ports,
    *,
    settings: ApiSettings,
    nonces: Nonces,
    identities: Identities,
    make_receipt: MakeReceipt,
    log: Log,
    metrics: Metrics | None = None,
    on_start: Hook | None = None,
    on_stop: Hook | None = None,
) -> App:
    """The HTTP face over these ports.

    Args:
        ports: everything behind the use cases; the store is counted from here on.
        settings: what belongs to HTTP.
        nonces: the DPoP nonces that all replicas share (`identity/`).
        identities: who proves what subject tokens say (`identity/`).
        make_receipt: `(tenant, run)` to a receipt (`ledger/`).
        log: the log over all chains (`ledger/`).
        metrics: where to count; the sweeper counts in the same. A new one by default.
        on_start: awaited when the server starts, before the first request.
        on_stop: awaited when it ends.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if on_start is not None:
            await on_start()
        try:
            yield
        finally:
            if on_stop is not None:
                await on_stop()

    app = _bare(lifespan)
    api = _api(
        ports,
        settings,
        nonces,
        identities,
        make_receipt=make_receipt,
        log=log,
        metrics=metrics if metrics is not None else Metrics(),
        description=cache(lambda: msgspec.json.encode(app.openapi())),
    )
    app.serve(routes(api, ENDPOINTS))
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _api(
    ports: Ports,
    settings: ApiSettings,
    nonces: Nonces,
    identities: Identities,
    *,
    make_receipt: MakeReceipt,
    log: Log,
    metrics: Metrics,
    description: Callable[[], bytes],
) -> Api:
    behind = replace(ports, store=MeteredStore(ports.store, metrics))
    tokens = AccessTokens(behind)
    proofs = Proofs(behind, nonces, settings.public_url)
    buckets = Buckets(settings.exchange_burst, settings.exchange_per_s)
    return Api(
        ports=behind,
        settings=settings,
        tokens=tokens,
        callers=Callers(behind, tokens, proofs),
        exchange=Exchange(behind, tokens, proofs, identities, buckets),
        health=Health(behind, log.continues),
        metrics=metrics,
        make_receipt=make_receipt,
        log=log,
        description=description,
    )


def _bare(lifespan: Callable[[FastAPI], Any]) -> App:
    # No pages that load scripts from elsewhere, no redirects (a proof is for one URL), no telemetry of its own: spans
    # and logs of a framework would hold paths and texts that we have not looked at.
    return App(
        title=TITLE,
        version=VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
        telemetry={
            "auto_configure": False,
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )


def _describe(app: FastAPI) -> dict[str, Any]:
    base = get_openapi(title=app.title, version=app.version, openapi_version="3.1.0", routes=[])
    return document(ENDPOINTS, base=base)


async def _no_route(_: Request, error: Exception) -> Response:
    """What Starlette says of unknown paths and methods, as a problem document."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    fault: StepgrantFault
    if status == problems.STATUSES[MethodNotAllowed.code].http:
        fault = MethodNotAllowed("this path does not know this method")
    elif status == problems.STATUSES[NotFound.code].http:
        fault = NotFound("there is nothing at this path")
    else:
        fault = StepgrantFault("the request could not be served")
    answer = problems.problem(fault)
    response = Response(answer.body, answer.status)
    response.headers["content-type"] = answer.media_type.decode()
    for name, value in (NO_STORE, *SECURITY_HEADERS, *answer.headers):
        response.headers[name.decode()] = value.decode()
    if isinstance(error, HTTPException) and error.headers and "Allow" in error.headers:
        response.headers["allow"] = error.headers["Allow"]
    return response
