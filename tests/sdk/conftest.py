"""A broker as the SDK sees it over HTTP: real proofs, assertions and nonces, and answers that a test can script."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import httpx
import jwt
import pytest

from stepgrant._dpop import verify_proof
from stepgrant._exchange import WorkloadKey
from stepgrant.canonical import loads

URL = "https://broker.example"
ACCESS_TOKEN = "access.token.1"  # made up


@dataclass
class WireBroker:
    """Answers `/oauth/token` and `/v1/grants/{jti}/redeem`. `script` answers come first, None means the true answer."""

    workload: WorkloadKey
    nonce: str = "nonce-1"
    skew_ms: int = 0
    window_ms: int = 10_000
    script: list[httpx.Response | Exception | None] = field(default_factory=list)
    seen: list[httpx.Request] = field(default_factory=list)
    assertions: list[dict[str, object]] = field(default_factory=list)
    redeemed: dict[str, tuple[str, str]] = field(default_factory=dict)
    token_changes: dict[str, object] = field(default_factory=dict)
    jkts: set[str] = field(default_factory=set)
    proven: str = ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        scripted = self.script.pop(0) if self.script else None
        if isinstance(scripted, Exception):
            raise scripted
        if scripted is not None:  # a copy, for a response object can be streamed only once
            return httpx.Response(scripted.status_code, headers=scripted.headers, content=scripted.content)
        if request.url.path == "/oauth/token":
            return self._token(request)
        return self._redeem(request)

    def _prove(self, request: httpx.Request, token: str | None) -> bool:
        nonces: list[str | None] = []
        proof = verify_proof(
            request.headers["dpop"],
            method=request.method,
            url=str(request.url),
            token=token,
            now_s=time.time(),
            check_nonce=nonces.append,
        )
        self.jkts.add(proof.jkt)
        self.proven = proof.jkt
        return nonces == [self.nonce]

    def _token(self, request: httpx.Request) -> httpx.Response:
        nonce = {"dpop-nonce": self.nonce}
        if not self._prove(request, None):
            return httpx.Response(400, json={"error": "use_dpop_nonce"}, headers=nonce)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
        claims = jwt.decode(
            form["subject_token"], jwt.PyJWK(self.workload.public_jwk), algorithms=["ES256", "EdDSA"], audience=URL
        )
        assert jwt.get_unverified_header(form["subject_token"])["typ"] == "client-authentication+jwt"
        assert claims["cnf"] == {"jkt": self.proven}  # or a copied assertion would work with another key
        self.assertions.append(claims)
        answer = {
            "access_token": ACCESS_TOKEN,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "DPoP",
            "expires_in": 300,
            **self.token_changes,
        }
        return httpx.Response(200, json=answer, headers=nonce)

    def _redeem(self, request: httpx.Request) -> httpx.Response:
        nonce = {"dpop-nonce": self.nonce}
        assert request.headers["authorization"] == f"DPoP {ACCESS_TOKEN}"
        if not self._prove(request, ACCESS_TOKEN):
            return httpx.Response(401, json={"code": "use_dpop_nonce"}, headers=nonce)
        body = loads(request.content)
        assert isinstance(body, dict)
        assert body["redemption_id"] == request.headers["idempotency-key"]
        jti = request.url.path.split("/")[3]
        spender = (str(body["redemption_id"]), str(body["proof_jti"]))
        if self.redeemed.setdefault(jti, spender) != spender:
            return httpx.Response(409, json={"code": "already_redeemed"})
        now = int(time.time() * 1000) + self.skew_ms
        return httpx.Response(200, json={"jti": jti, "act_before": now + self.window_ms, "now": now})

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))

    def async_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


@pytest.fixture
def broker() -> WireBroker:
    return WireBroker(WorkloadKey.generate("wkl_tool"))
