"""Endpoints: declared once, and from that declaration both served and described.

Rules:
* An endpoint says its method, path, who may call it, what it takes and what it answers; `openapi.py` reads the same
  declaration, so the description cannot drift from what is served.
* Who calls is proven before a body is read, and the kind of caller is checked here for all endpoints alike: a workload
  never gets to what is for people, a person never to what is for workloads.
* A call that changes something needs an Idempotency-Key, except redeem, whose `redemption_id` is one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
import structlog
from starlette.routing import Route

from stepgrant_broker.api import parsing, problems
from stepgrant_broker.api.messages import JSON, Answer, ClientGoneError, Incoming, json_answer
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.errors import InvalidRequest, StepgrantFault, Unavailable

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from stepgrant_broker.api.context import Api

C = TypeVar("C")
Taken = TypeVar("Taken")

WITH_BODY: Final = frozenset({"POST", "PUT"})
REST: Final = "tile"
"""The one parameter of a path that may hold slashes: the rest of it."""
READING: Final = frozenset({"GET", "HEAD"})

_log = structlog.get_logger(__name__)


class Needs(StrEnum):
    """Who may call."""

    NOBODY = "nobody"
    AGENT = "agent"
    PERSON = "person"
    EITHER = "either"


class Nothing(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Neither body nor query."""


class Call(Generic[C, Taken]):
    """A parsed call: who, what (body or query), and where to. `raw` is the body as JSON."""

    __slots__ = ("caller", "key", "path", "raw", "taken")

    def __init__(self, caller: C, taken: Taken, path: Mapping[str, str], raw: Mapping[str, Any], key: str) -> None:
        self.caller = caller
        self.taken = taken
        self.path = path
        self.raw = raw
        self.key = key

    def segment(self, name: str) -> str:
        """A key in the path. Raises `InvalidRequest`."""
        return parsing.segment(self.path, name)

    def request(self, target: str = "") -> Request:
        """What a use case needs to know a repeated call again."""
        return Request(self.key, parsing.body_bytes(self.raw), target)


Serve: TypeAlias = Callable[["Api", Incoming], Awaitable[Answer]]
Handle: TypeAlias = Callable[["Api", Call[C, Taken]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. `answers` is a struct (or union of them) that describes the 200 answer."""

    method: str
    path: str
    name: str
    summary: str
    needs: Needs
    takes: Any
    answers: Any
    keyed: bool
    serve: Serve


def _declare(
    method: str,
    path: str,
    handle: Callable[[Api, Call[Any, Any]], Awaitable[Any]],
    needs: Needs,
    kinds: tuple[Any, Any],
    *,
    keyed: bool | None,
) -> Endpoint:
    takes, answers = kinds
    with_key = method not in READING if keyed is None else keyed

    async def serve(api: Api, incoming: Incoming) -> Answer:
        failpoints = api.ports.failpoints
        caller = await api.callers.prove(incoming, needs)
        if failpoints is not None:
            failpoints.hit("api.after_authn")
        key = idempotency_key(incoming) if with_key else ""
        if method in WITH_BODY:
            raw = await body_of(incoming, api.settings.max_body_bytes)
            taken = parsing.convert(raw, takes)
        else:
            raw, taken = {}, query_of(incoming, takes)
        if failpoints is not None:
            failpoints.hit("api.after_parse")
        given = await handle(api, Call(caller, taken, incoming.scope["path_params"], raw, key))
        return given if isinstance(given, Answer) else json_answer(given)

    name = getattr(handle, "__name__", "call").strip("_")
    summary = (handle.__doc__ or name).partition("\n")[0]
    return Endpoint(method, path, name, summary, needs, takes, answers, with_key, serve)


def agents(
    method: str, path: str, handle: Handle[AgentCaller, Taken], takes: type[Taken], answers: Any, *,  # noqa: ANN401
    keyed: bool | None = None,
) -> Endpoint:  # fmt: skip
    """An endpoint for workloads."""
    return _declare(method, path, handle, Needs.AGENT, (takes, answers), keyed=keyed)


def people(
    method: str, path: str, handle: Handle[PersonCaller, Taken], takes: type[Taken], answers: Any, *,  # noqa: ANN401
    keyed: bool | None = None,
) -> Endpoint:  # fmt: skip
    """An endpoint for people."""
    return _declare(method, path, handle, Needs.PERSON, (takes, answers), keyed=keyed)


def either(
    method: str, path: str, handle: Handle[AgentCaller | PersonCaller, Taken], takes: type[Taken],
    answers: Any, *, keyed: bool | None = None,  # noqa: ANN401
) -> Endpoint:  # fmt: skip
    """An endpoint for workloads and people; the handler tells them apart."""
    return _declare(method, path, handle, Needs.EITHER, (takes, answers), keyed=keyed)


def public(method: str, path: str, serve: Serve, answers: Any, *, takes: Any = Nothing) -> Endpoint:  # noqa: ANN401
    """An endpoint that asks nobody who they are (keys, health, the token exchange)."""
    name = getattr(serve, "__name__", "call").strip("_")
    summary = (serve.__doc__ or name).partition("\n")[0]
    return Endpoint(method, path, name, summary, Needs.NOBODY, takes, answers, keyed=False, serve=serve)


def idempotency_key(incoming: Incoming) -> str:
    """The call's Idempotency-Key. Raises `InvalidRequest`."""
    key = incoming.header(b"idempotency-key")
    if not key:
        raise InvalidRequest("every call that changes something needs this header", field="Idempotency-Key")
    return key


async def body_of(incoming: Incoming, limit: int) -> dict[str, Any]:
    """The JSON body of a call. Raises `InvalidRequest`, `TooLarge`, `UnsupportedMediaType`."""
    if incoming.scope["query_string"]:
        raise InvalidRequest("this call takes no query", field="query")
    incoming.require_type(JSON)
    return parsing.json_object(await incoming.body(limit), limit)


def query_of(incoming: Incoming, kind: type[Taken]) -> Taken:
    """The query of a call. Raises `InvalidRequest`."""
    return parsing.convert_query(incoming.scope["query_string"], kind)


class Served:
    """One path as an ASGI application: picks the method, renders faults, counts, and lets nothing through."""

    def __init__(self, api: Api, endpoints: Iterable[Endpoint]) -> None:
        self._api = api
        self._by_method = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self._by_method:
            self._by_method["HEAD"] = self._by_method["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        endpoint = self._by_method[scope["method"]]
        incoming = Incoming(scope, receive)
        try:
            answer = await endpoint.serve(self._api, incoming)
        except ClientGoneError:
            return
        except StepgrantFault as fault:
            answer = _refusal(fault, endpoint)
        except Exception as error:  # noqa: BLE001 - the outermost border: nothing of it may reach the caller
            answer = problems.problem(problems.fault_of(error, route=endpoint.path))
        self._api.metrics.request(endpoint.path, endpoint.method, answer.status, time.perf_counter() - started)
        extra = () if incoming.nonce is None else ((b"dpop-nonce", incoming.nonce.encode()),)
        await answer.send(send, extra)


def _refusal(fault: StepgrantFault, endpoint: Endpoint) -> Answer:
    if isinstance(fault, Unavailable):
        _log.warning("unavailable", route=endpoint.path, code=fault.code, kind=type(fault).__name__)
    return problems.problem(fault, scheme="Bearer" if endpoint.needs is Needs.PERSON else "DPoP")


def routes(api: Api, endpoints: Iterable[Endpoint]) -> list[Route]:
    """Starlette routes, one for each path, in the order of the declarations (hot paths stand first)."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    return [
        Route(
            path.replace(f"{{{REST}}}", f"{{{REST}:path}}"),
            Served(api, those),
            methods=[one.method for one in those],
            name=those[0].name,
        )
        for path, those in by_path.items()
    ]
