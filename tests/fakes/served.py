"""The real application over the hand's real adapters, called as agents, resource servers and people call it.

Every answer is compared with the OpenAPI document, closed against members that the document does not know.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from fastapi import FastAPI

from fakes.hand import Hand, allow, hand
from fakes.world import AUDIENCE
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey
from stepgrant_broker.api.app import ENDPOINTS, create_app
from stepgrant_broker.api.context import ApiSettings
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.identity.choosing import Identities
from stepgrant_broker.identity.enrolled import EnrolledIdentity
from stepgrant_broker.identity.nonces import LABEL, Nonces
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.operators import create_operator

URL = "http://127.0.0.1:8423"
OPEN: Mapping[str, str] = {"agent": "agent", "run_key": "job"}
_keys = itertools.count()


def fresh_key() -> str:
    """A new Idempotency-Key."""
    return f"idem-{next(_keys)}"


def route_of(method: str, path: str) -> tuple[str, str] | None:
    """The declared method (lower case) and path template of a request."""
    for endpoint in ENDPOINTS:
        names = endpoint.path.split("/")
        rest = {"maxsplit": len(names) - 1} if names[-1] == "{tile}" else {}
        parts = path.split("/", **rest)
        same = len(names) == len(parts) and all(n.startswith("{") or n == p for n, p in zip(names, parts, strict=True))
        if same and endpoint.method == method:
            return endpoint.method.lower(), endpoint.path
    return None


@dataclass
class Described:
    """The OpenAPI document, and whether an answer is as it says."""

    document: dict[str, Any]
    seen: set[tuple[str, str, str]] = field(default_factory=set)

    @cached_property
    def _components(self) -> dict[str, Any]:
        schemas: dict[str, Any] = json.loads(json.dumps(self.document["components"]["schemas"]))
        for name, schema in schemas.items():
            if schema.get("type") == "object" and "properties" in schema and name != "Problem":
                schema["additionalProperties"] = False
        return {"schemas": schemas}

    def check(self, response: httpx.Response) -> None:
        """Raises `jsonschema.ValidationError`, or `LookupError` for an answer that nobody declared."""
        route = route_of(response.request.method, response.request.url.path)
        if route is None:
            return
        declared = self.document["paths"][route[1]][route[0]]["responses"]
        status = str(response.status_code)
        answer = declared.get(status) or declared.get(f"{status[0]}XX")
        media = response.headers["content-type"].partition(";")[0]
        if answer is None or media not in answer["content"]:
            raise LookupError(f"{route} may not answer {status} {media}")
        if media.endswith("json"):
            schema = {**answer["content"][media]["schema"], "components": self._components}
            jsonschema.Draft202012Validator(schema).validate(response.json())
        self.seen.add((*route, status))


@dataclass
class Caller:
    """A workload's process: its enrolled key, a DPoP key of its own, and what the broker gave it."""

    broker: Broker
    workload: WorkloadKey
    dpop: DpopKey = field(default_factory=DpopKey)
    token: str = ""
    nonce: str | None = None

    def request(self) -> TokenRequest:
        """The SDK's own exchange request."""
        return TokenRequest(URL, self.workload, self.dpop)

    async def post_form(self, form: Mapping[str, str], **headers: str) -> httpx.Response:
        """A try at the token endpoint."""
        sent = {**self.request().headers(self.nonce, self.broker.now_s), **headers}
        response = await self.broker.client.post("/oauth/token", data=dict(form), headers=sent)
        return self.broker.checked(response)

    async def exchange(self) -> Caller:
        """Get an access token, following the nonce."""
        self.nonce = self.broker.nonces.current(self.broker.now_s)
        response = await self.post_form(self.request().form(self.broker.now_s))
        assert response.status_code == 200, response.text
        self.token = response.json()["access_token"]
        return self

    def headers(self, method: str, path: str, **more: Any) -> dict[str, str]:  # noqa: ANN401 - of `DpopKey.proof`
        """Token and fresh proof."""
        given = {"token": self.token, "nonce": self.nonce, "now": self.broker.now_s, **more}
        proof = self.dpop.proof(method, URL + path.partition("?")[0], **given)
        return {"authorization": f"DPoP {self.token}", "dpop": proof}

    async def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """One call, with a fresh proof and a fresh Idempotency-Key."""
        sent = {**self.headers(method, path), **headers}
        return await self.broker.send(method, path, body, key=key, headers=sent)

    async def open(self, run_key: str = "job", **body: Any) -> dict[str, Any]:  # noqa: ANN401 - members
        """Open or resume a run."""
        response = await self.call("POST", "/v1/runs", {"agent": "agent", "run_key": run_key, **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def begin(self, run: str, step: str = "s1", **body: Any) -> httpx.Response:  # noqa: ANN401 - members
        """Begin a step."""
        return await self.call("POST", f"/v1/runs/{run}/steps/{step}/begin", step_body(**body))


def step_body(decision: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    """The body of prepare, start and begin; the policy answers `decision`."""
    action = {"tool": "refund.create", "resource": "order/1", "args": {"amount": 5}}
    context = {"decide": dict(decision or allow(effect=more.get("effect", "once")))}
    return {"epoch": 1, "action": action, "context": context, **more}


@dataclass
class Broker:
    """One served broker."""

    hand: Hand
    ports: Ports
    app: FastAPI
    make_app: Callable[..., FastAPI]
    client: httpx.AsyncClient
    nonces: Nonces
    described: Described
    agent_key: WorkloadKey
    server_key: WorkloadKey
    people: dict[str, str] = field(repr=False)
    """Operator tokens by name: `olga` (operator), `ann` and `bob` (approvers)."""
    sequencer: Sequencer
    """Makes a round only when a test says so."""

    @property
    def now_s(self) -> float:
        """The broker's time in seconds."""
        return self.hand.clock.now() / 1000

    def checked(self, response: httpx.Response) -> httpx.Response:
        """The response, if it is as the document says."""
        self.described.check(response)
        return response

    async def send(
        self, method: str, path: str, body: object = None, *, key: str | None = None, headers: Mapping[str, str]
    ) -> httpx.Response:
        """One call with these headers; a body is sent as JSON (bytes as they are)."""
        sent = dict(headers)
        if method != "GET" and key != "":
            sent.setdefault("idempotency-key", key or fresh_key())
        content = None
        if method in {"POST", "PUT"}:
            sent.setdefault("content-type", "application/json")
            content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return self.checked(await self.client.request(method, path, content=content, headers=sent))

    async def person(
        self, method: str, path: str, body: object = None, *, who: str = "olga", key: str | None = None
    ) -> httpx.Response:
        """One call of a person."""
        return await self.send(method, path, body, key=key, headers={"authorization": f"Bearer {self.people[who]}"})

    async def runs(self) -> list[dict[str, Any]]:
        """All runs of the tenant."""
        return list((await self.person("GET", "/v1/runs")).json()["runs"])

    async def open_with(self, headers: Mapping[str, str]) -> httpx.Response:
        """Open a run with these headers."""
        return await self.send("POST", "/v1/runs", OPEN, headers=headers)

    async def refuses(self, headers: Mapping[str, str], code: str) -> httpx.Response:
        """Try to open the first run with these headers: a 401 with this code, and no run."""
        response = await self.open_with(headers)
        assert response.status_code == 401, response.text
        assert response.json()["code"] == code
        assert await self.runs() == []
        return response

    @asynccontextmanager
    async def replica(
        self,
        *,
        identities: Identities | None = None,
        **ports: Any,  # noqa: ANN401 - members of `Ports`
    ) -> AsyncIterator[Broker]:
        """Another replica over the same store and keys, or with some ports or identities of its own."""
        known = {} if identities is None else {"identities": identities}
        app = self.make_app(replace(self.ports, **ports), **known)
        async with _client(app) as client:
            yield replace(self, app=app, client=client)

    async def agent(self) -> Caller:
        """A fresh process of the agent, with a token."""
        return await Caller(self, self.agent_key).exchange()

    async def server(self) -> Caller:
        """A fresh process of the resource server, with a token."""
        return await Caller(self, self.server_key).exchange()

    async def entries(self, run: str | None) -> list[str]:
        """The types of a chain's entries."""
        return await self.hand.entries(run)


async def enrolled(ports: Ports, tenant: str, name: str, *, agents: tuple[str, ...] = (), audiences: tuple[str, ...] = ()) -> WorkloadKey:  # fmt: skip  # noqa: E501
    """A workload key that is enrolled."""
    drawn = WorkloadKey.generate("wkl_to_be")
    view = await enroll(ports, tenant, None, Enrolment(name, agents, audiences, drawn.public_jwk, drawn.jkt))
    drawn.workload_id = str(view["id"])
    return drawn


def _client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=URL)


@asynccontextmanager
async def served(
    folder: Path,
    limits: Limits | None = None,
    *,
    identities: Callable[[Ports], Identities] = lambda ports: Identities(EnrolledIdentity(ports.reads, URL)),
    **settings: Any,  # noqa: ANN401 - of `ApiSettings`
) -> AsyncIterator[Broker]:
    """A served broker over fresh adapters in `folder`. `identities`: whom it knows, besides enrolled keys."""
    async with hand(folder, limits) as held:
        ports = held.ports
        wrap = LocalWrap.open(folder / "keys")
        nonces = Nonces(wrap.derive(LABEL))
        assert isinstance(ports.signer, LocalSigner)
        sequencer = Sequencer(held.store, ports.signer, ports.clock, await held.store.log_origin("127.0.0.1:8423/log"))
        public_log = PublicLog(held.store, sequencer)
        make_app = partial(
            create_app,
            settings=ApiSettings(URL, **settings),
            nonces=nonces,
            identities=identities(ports),
            make_receipt=partial(make_receipt, ports.reads, ports.wrap, ports.signer, log=public_log),
            log=public_log,
        )
        app = make_app(ports)
        agent_key = await enrolled(ports, "acme", "refunds", agents=("agent",))
        server_key = await enrolled(ports, "acme", "shop", audiences=(AUDIENCE,))
        people = {}
        for name, role, groups in (
            ("olga", "operator", ()),
            ("ann", "approver", ("managers",)),
            ("bob", "approver", ()),
        ):
            made = await create_operator(
                ports, "acme", None, name=name.title(), roles=[role], groups=groups, another_token=True
            )
            people[name] = str(made["token"])
        async with _client(app) as client:
            described = Described(app.openapi())
            yield Broker(
                held, ports, app, make_app, client, nonces, described, agent_key, server_key, people, sequencer
            )
