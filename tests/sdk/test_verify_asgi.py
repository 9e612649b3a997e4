"""The middleware: the application runs with a verified grant and the very body that was checked, or not at all."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import Action, GrantVerifier, HttpRequest, StepgrantMiddleware

BROKER = "https://broker.example"
TOOL = "https://tool.example"
issuer_key = ec.generate_private_key(ec.SECP256R1())
JWKS: dict[str, canonical.JsonValue] = {
    "keys": [{**ECAlgorithm.to_jwk(issuer_key.public_key(), as_dict=True), "kid": "k1"}]
}
holder = DpopKey()
ARGS: dict[str, canonical.JsonValue] = {"order": "991", "amount": 100}


def grant(args: canonical.JsonValue, tool: str = "refund.create") -> str:
    now = int(time.time())
    detail = {
        "type": "stepgrant_action",
        "locations": [TOOL],
        "actions": [tool],
        "run_id": "run_1",
        "step": "s",
        "attempt": 1,
        "epoch": 1,
        "args_digest": canonical.action_digest(tool, None, args),
        "effect": "read",
        "redeem": "optional",
        "max_uses": 1,
        "policy": {"revision": "1:a", "decision_id": "dec_1"},
    }
    claims = {
        "iss": BROKER,
        "aud": TOOL,
        "tenant": "default",
        "sub": "wkl_1",
        "client_id": "wkl_1",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": f"grn_{time.perf_counter_ns()}",
        "cnf": {"jkt": holder.jkt},
        "authorization_details": [detail],
    }
    return jwt.encode(claims, issuer_key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "k1"})


class Target:
    """The application behind; it keeps its own book of what was done to it."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bytes, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] == "lifespan":
            self.done.append(("lifespan", b"", None))
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.done.append((scope["path"], body, scope.get("stepgrant")))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def extract(request: HttpRequest) -> Action:
    if request.path == "/crash":
        raise KeyError("amount")
    if request.method == "GET":
        return Action("report.get", None, {"path": request.path, "query": request.query_string})
    return Action("refund.create", None, request.json())


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def guarded(target: Target) -> StepgrantMiddleware:
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=JWKS)
    return StepgrantMiddleware(target, verifier, extract, open_paths={"/healthz"}, max_body_bytes=1000)


@pytest.fixture
def client(guarded: StepgrantMiddleware) -> httpx.AsyncClient:
    # The Host that clients send is not the public address: it must not count.
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://10.0.0.7:8080")


def headers(token: str, method: str = "POST", path: str = "/refunds", scheme: str = "DPoP") -> dict[str, str]:
    return {"authorization": f"{scheme} {token}", "dpop": holder.proof(method, TOOL + path, token=token)}


async def test_the_application_runs_with_the_grant_and_the_checked_body(
    client: httpx.AsyncClient, target: Target
) -> None:
    body = json.dumps(ARGS).encode()
    answer = await client.post("/refunds", content=body, headers=headers(grant(ARGS)))

    assert (answer.status_code, answer.text) == (200, "done")
    ((path, seen, verified),) = target.done
    assert (path, seen) == ("/refunds", body)
    assert (verified.tool, verified.run_id, verified.redeemed) == ("refund.create", "run_1", False)


async def test_a_body_in_pieces_is_checked_and_handed_on_whole(client: httpx.AsyncClient, target: Target) -> None:
    body = json.dumps(ARGS).encode()

    async def pieces() -> Any:  # noqa: ANN401
        for start in range(0, len(body), 3):
            yield body[start : start + 3]

    answer = await client.post("/refunds", content=pieces(), headers=headers(grant(ARGS)))

    assert answer.status_code == 200
    assert target.done[0][1] == body


async def test_an_encoded_path_and_a_query(client: httpx.AsyncClient, target: Target) -> None:
    args: dict[str, canonical.JsonValue] = {"path": "/r/a b/ü", "query": "x=1"}
    token = grant(args, "report.get")
    answer = await client.get("/r/a%20b/%c3%bc?x=1", headers=headers(token, "GET", "/r/a%20b/%C3%BC"))

    assert answer.status_code == 200
    assert len(target.done) == 1


async def test_open_paths_are_open_and_only_they(client: httpx.AsyncClient, target: Target) -> None:
    assert (await client.get("/healthz")).status_code == 200
    for path in ("/healthz/", "/healthz/x", "//healthz", "/HEALTHZ"):
        assert (await client.get(path)).status_code == 401

    assert [path for path, _, _ in target.done] == ["/healthz"]


PROBLEM = "application/problem+json"
# The headers are made when the test runs: a proof lives a minute, and collecting all tests may take longer.


@pytest.mark.parametrize(
    ("sent", "status", "code", "challenge"),
    [
        pytest.param(dict, 401, "invalid_token", 'DPoP algs="ES256 EdDSA"', id="nothing"),
        pytest.param(
            lambda: headers(grant(ARGS), scheme="Bearer"),
            401,
            "invalid_token",
            'DPoP error="invalid_token", algs="ES256 EdDSA"',
            id="bearer",
        ),
        pytest.param(
            lambda: {"authorization": f"DPoP {grant(ARGS)}"},
            401,
            "invalid_dpop_proof",
            'DPoP error="invalid_dpop_proof", algs="ES256 EdDSA"',
            id="no proof",
        ),
        pytest.param(
            lambda: headers(grant(ARGS), path="/other"),
            401,
            "invalid_dpop_proof",
            'DPoP error="invalid_dpop_proof", algs="ES256 EdDSA"',
            id="proof for another path",
        ),
        pytest.param(lambda: headers(grant({"order": "992"})), 400, "digest_mismatch", None, id="other arguments"),
    ],
)
async def test_a_refusal_is_a_problem_and_the_application_does_not_run(
    client: httpx.AsyncClient,
    target: Target,
    sent: Callable[[], dict[str, str]],
    status: int,
    code: str,
    challenge: str | None,
) -> None:
    answer = await client.post("/refunds", json=ARGS, headers=sent())

    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get("www-authenticate") == challenge
    assert (answer.json()["code"], answer.json()["status"]) == (code, status)
    assert target.done == []


async def test_a_changed_body_under_a_true_grant(client: httpx.AsyncClient, target: Target) -> None:
    answer = await client.post("/refunds", json={**ARGS, "amount": 101}, headers=headers(grant(ARGS)))

    assert (answer.status_code, answer.json()["reason"]) == (400, "wrong_arguments")
    assert target.done == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"order":"991","order":"992"}', b"\xff", b"[NaN]"])
async def test_a_body_that_is_no_strict_json(client: httpx.AsyncClient, target: Target, body: bytes) -> None:
    answer = await client.post("/refunds", content=body, headers=headers(grant(ARGS)))

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert target.done == []


async def test_a_body_that_is_too_large(client: httpx.AsyncClient, target: Target) -> None:
    answer = await client.post("/refunds", content=b"x" * 1001, headers=headers(grant(ARGS)))

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert target.done == []


async def test_a_crash_while_reading_the_action_runs_nothing(client: httpx.AsyncClient, target: Target) -> None:
    with pytest.raises(KeyError):
        await client.post("/crash", json=ARGS, headers=headers(grant(ARGS), path="/crash"))

    assert target.done == []


async def test_a_websocket_is_refused(guarded: StepgrantMiddleware, target: Target) -> None:
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    await guarded({"type": "websocket", "path": "/healthz", "headers": []}, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert target.done == []


async def test_a_client_that_goes_away_leaves_nothing_behind(guarded: StepgrantMiddleware, target: Target) -> None:
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/refunds", "headers": [], "query_string": b""}
    await guarded(scope, receive, send)

    assert (sent, target.done) == ([], [])


async def test_the_lifespan_reaches_the_application(guarded: StepgrantMiddleware, target: Target) -> None:
    async def never(*_: object) -> Any:  # noqa: ANN401
        raise AssertionError

    await guarded({"type": "lifespan"}, never, never)

    assert target.done == [("lifespan", b"", None)]


@pytest.mark.parametrize(
    "url", ["tool.example", "ftp://tool.example", "https://tool.example/mcp", "https://t?x=1", "https://["]
)
def test_a_public_url_is_an_address_without_a_path(target: Target, url: str) -> None:
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=JWKS)
    with pytest.raises(errors.ConfigurationError):
        StepgrantMiddleware(target, verifier, extract, public_url=url)
