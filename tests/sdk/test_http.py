"""`stepgrant.http.Auth`: what goes out with a request, and where nothing goes."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import stepgrant
from scripted import TOKEN, Reply, ScriptedBroker, granted, released_credential, scripted
from stepgrant import errors
from stepgrant._dpop import verify_proof

KEY = "an-api-key-of-ours"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


class Server:
    """A target: what it was sent, and where it sends its callers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.redirect: str | None = None
        self.nonce: str | None = None
        self.url = ""


@contextmanager
def served() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            server.seen.append({name.lower(): value for name, value in self.headers.items()})
            nonce, server.nonce = server.nonce, None
            self.send_response(307 if server.redirect else 401 if nonce else 200)
            if server.redirect:
                self.send_header("location", server.redirect)
            if nonce:
                self.send_header("dpop-nonce", nonce)
                self.send_header("www-authenticate", 'DPoP error="use_dpop_nonce"')
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def target() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    with served() as server:
        yield server


class Sender:
    """Sends one request inside a step, with httpx's blocking or asyncio client."""

    def __init__(self, broker: ScriptedBroker, *, blocking: bool) -> None:
        self.broker = broker
        self.blocking = blocking

    async def send(self, url: str, method: str = "POST", *, static: bool = False, where: str, **more: Any) -> Any:
        """The response, or what was raised."""
        given = {"hosts": [where]}
        if static:
            given |= {"kind": "static", "fields": {"value": KEY, "header": "X-Api-Key"}, "revocation": "none"}  # type: ignore[dict-item]  # JSON
        self.broker.will("begin", Reply(granted("charge-1", credential=released_credential(**given))))
        follow = more.pop("follow_redirects", False)
        transport = more.pop("transport", None)

        @stepgrant.tool(name="charge")
        def charge() -> int:
            with httpx.Client(auth=stepgrant.http.Auth(), trust_env=False, transport=transport) as client:
                return client.request(method, url, follow_redirects=follow, **more).status_code

        @stepgrant.tool(name="charge")
        async def acharge() -> int:
            async with httpx.AsyncClient(auth=stepgrant.http.Auth(), trust_env=False, transport=transport) as client:
                return (await client.request(method, url, follow_redirects=follow, **more)).status_code

        with stepgrant.run("job", agent="agent", **self.broker.at()):
            return charge() if self.blocking else await acharge()


@pytest.fixture(params=[True, False], ids=["Client", "AsyncClient"])
def sender(request: pytest.FixtureRequest, broker: ScriptedBroker) -> Sender:
    return Sender(broker, blocking=request.param)


async def test_request_goes_out_with_token_proof_and_key(sender: Sender, target: Server) -> None:
    assert await sender.send(f"{target.url}/refunds?dry=1", where=target.url, json={"amount": 5}) == 200

    (seen,) = target.seen
    assert seen["authorization"] == f"DPoP {TOKEN}"
    assert seen["idempotency-key"] == "sg-key-of-the-step"
    verify_proof(seen["dpop"], method="POST", url=f"{target.url}/refunds", token=TOKEN, now_s=time.time())


async def test_static_secret_goes_out_in_its_header(sender: Sender, target: Server) -> None:
    host = target.url.removeprefix("http://")
    assert await sender.send(target.url, static=True, where=host) == 200

    assert target.seen[0]["x-api-key"] == KEY
    assert "authorization" not in target.seen[0]


async def test_key_that_the_tool_gave_stays(sender: Sender, target: Server) -> None:
    await sender.send(target.url, where=target.url, headers={"Idempotency-Key": "the tool's own"})

    assert target.seen[0]["idempotency-key"] == "the tool's own"


async def test_other_origin_gets_nothing(sender: Sender, target: Server, elsewhere: Server) -> None:
    with pytest.raises(errors.CredentialMisuse, match="is outside this grant"):
        await sender.send(elsewhere.url, where=target.url)

    assert elsewhere.seen == target.seen == []


@pytest.mark.parametrize("static", [True, False], ids=["static", "jwt"])
async def test_redirect_takes_no_secret_elsewhere(
    sender: Sender, target: Server, elsewhere: Server, *, static: bool
) -> None:
    """A client keeps all headers but Authorization when it is redirected to another origin."""
    target.redirect = f"{elsewhere.url}/"
    where = target.url.removeprefix("http://") if static else target.url
    with pytest.raises(errors.CredentialMisuse, match="is outside this grant"):
        await sender.send(target.url, static=static, where=where, follow_redirects=True)

    assert len(target.seen) == 1
    assert elsewhere.seen == []


async def test_redirect_over_a_transport_that_does_not_tell_is_at_least_noticed(sender: Sender) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "tool.example":
            return httpx.Response(307, headers={"location": "https://evil.example/"})
        return httpx.Response(200)

    with pytest.raises(errors.CredentialMisuse, match=r"https://evil\.example is outside this grant"):
        await sender.send(
            "https://tool.example/",
            where="https://tool.example",
            follow_redirects=True,
            transport=httpx.MockTransport(answer),
        )


async def test_redirect_inside_the_grant_is_allowed(sender: Sender, target: Server) -> None:
    other = f"{target.url}/there"
    answers = iter([httpx.Response(307, headers={"location": other}), httpx.Response(200)])
    transport = httpx.MockTransport(lambda _: next(answers))

    assert await sender.send(target.url, where=target.url, follow_redirects=True, transport=transport) == 200


async def test_nonce_of_the_resource_server_is_followed_once(sender: Sender, target: Server) -> None:
    target.nonce = "theirs-1"
    assert await sender.send(target.url, where=target.url, json={}) == 200

    first, second = target.seen
    nonces: list[str | None] = []
    for seen in (first, second):
        verify_proof(
            seen["dpop"], method="POST", url=target.url, token=TOKEN, now_s=time.time(), check_nonce=nonces.append
        )
    assert nonces == [None, "theirs-1"]


async def test_trace_of_the_tool_still_hears(broker: ScriptedBroker, target: Server) -> None:
    heard: list[str] = []

    async def hear(event: str, _: dict[str, Any]) -> None:
        heard.append(event)

    await Sender(broker, blocking=False).send(target.url, where=target.url, extensions={"trace": hear})
    blocking: list[str] = []
    extensions = {"trace": lambda event, _: blocking.append(event)}
    await Sender(broker, blocking=True).send(target.url, where=target.url, extensions=extensions)

    assert "http11.send_request_headers.started" in heard
    assert "http11.send_request_headers.started" in blocking


def test_outside_of_a_step_nothing_goes_out(target: Server) -> None:
    with (
        httpx.Client(auth=stepgrant.http.Auth(), trust_env=False) as client,
        pytest.raises(errors.CredentialMisuse, match="no step is running here"),
    ):
        client.post(target.url)

    assert target.seen == []


def test_client_that_outlives_its_step_has_no_credential(broker: ScriptedBroker, target: Server) -> None:
    broker.will("begin", Reply(granted("charge-1", credential=released_credential(hosts=[target.url]))))
    client = httpx.Client(auth=stepgrant.http.Auth(), trust_env=False)

    @stepgrant.tool
    def charge() -> int:
        kept.append(stepgrant.http.Auth(stepgrant.current_credential()))
        return client.post(target.url).status_code

    kept: list[httpx.Auth] = []
    with client, stepgrant.run("job", agent="agent", **broker.at()):
        assert charge() == 200
        with pytest.raises(errors.CredentialMisuse, match="no step is running here"):
            client.post(target.url)
        with pytest.raises(errors.CredentialMisuse, match="step is over"):
            client.post(target.url, auth=kept[0])

    assert len(target.seen) == 1
