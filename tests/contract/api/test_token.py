"""`POST /oauth/token`: what it gives, and every way in which it refuses, in OAuth's own words."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from changing import replace
from fakes.served import URL, Broker, Caller, enrolled, served
from stepgrant import _jose
from stepgrant._dpop import DpopKey
from stepgrant.verify import WorkloadKey
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.ports import PublicKey, Signature, Signer


async def fresh(broker: Broker) -> tuple[Caller, dict[str, str]]:
    caller = Caller(broker, broker.agent_key, nonce=broker.nonces.current(broker.now_s))
    return caller, caller.request().form(broker.now_s)


def refused(response: httpx.Response, status: int, error: str) -> None:
    assert (response.status_code, response.json().get("error")) == (status, error), response.text
    assert "access_token" not in response.json()
    assert response.headers["cache-control"] == "no-store"


async def test_the_sdks_own_exchange_gets_a_token_for_its_key(broker: Broker) -> None:
    request = Caller(broker, broker.agent_key).request()
    caller = Caller(broker, broker.agent_key, request.dpop)
    first = await caller.post_form(request.form(broker.now_s))
    refused(first, 400, "use_dpop_nonce")
    caller.nonce = first.headers["dpop-nonce"]
    response = await caller.post_form(request.form(broker.now_s))

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["dpop-nonce"] == caller.nonce
    body = response.json()
    assert (body["token_type"], body["expires_in"]) == ("DPoP", 300)
    jws = _jose.parse(body["access_token"])
    claims = jws.unverified_claims()
    assert jws.header["typ"] == "at+jwt"
    assert (claims["iss"], claims["aud"]) == (URL, URL)
    assert claims["sub"] == "workload:acme/refunds"
    assert claims["client_id"] == broker.agent_key.workload_id
    assert claims["cnf"] == {"jkt": request.dpop.jkt}
    assert claims["exp"] == int(broker.now_s) + 300
    own = claims["stepgrant"]
    assert isinstance(own, dict)
    assert (own["tenant"], own["method"], own["attested_at"]) == ("acme", "enrolled_key", int(broker.now_s * 1000))
    assert str(own["evidence"]).startswith("sha-256:")


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, 400, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, 401, "invalid_client"),
        ({"subject_token": ""}, 400, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, 400, "invalid_request"),
        ({"actor_token": "x"}, 400, "invalid_request"),
        ({"resource": "https://other.example"}, 400, "invalid_target"),
        ({"audience": "https://other.example"}, 400, "invalid_target"),
        ({"scope": "admin"}, 400, "invalid_scope"),
        ({"subject_token": "a.b.c"}, 401, "invalid_client"),
    ],
    ids=str,
)
async def test_another_form_is_refused(broker: Broker, change: dict[str, str], status: int, error: str) -> None:
    caller, form = await fresh(broker)

    refused(await caller.post_form({**form, **change}), status, error)


@pytest.mark.parametrize("resource", ["resource", "audience"])
async def test_this_broker_may_be_named_as_target(broker: Broker, resource: str) -> None:
    caller, form = await fresh(broker)

    assert (await caller.post_form({**form, resource: URL})).status_code == 200


async def post(broker: Broker, caller: Caller, content: bytes, kind: str = "application/x-www-form-urlencoded", path: str = "/oauth/token") -> httpx.Response:  # fmt: skip  # noqa: E501
    headers = {**caller.request().headers(caller.nonce, broker.now_s), "content-type": kind}
    return broker.checked(await broker.client.post(path, content=content, headers=headers))


async def test_what_is_no_form_is_refused(broker: Broker) -> None:
    caller, form = await fresh(broker)
    encoded = str(httpx.QueryParams(form)).encode()

    refused(await post(broker, caller, encoded, "application/json"), 415, "invalid_request")
    refused(await post(broker, caller, encoded + b"&grant_type=x"), 400, "invalid_request")
    refused(await post(broker, caller, b"\xff\xfe"), 400, "invalid_request")
    refused(await post(broker, caller, b"grant_type=%FF"), 400, "invalid_request")
    refused(await post(broker, caller, b"&".join(b"a%d=1" % n for n in range(50))), 400, "invalid_request")
    refused(await post(broker, caller, encoded + b"&pad=" + b"x" * 40_000), 413, "invalid_request")
    refused(await post(broker, caller, b""), 400, "invalid_request")
    # Parameters in the URL would stand in every log on the way.
    response = await broker.client.post(f"/oauth/token?{encoded.decode()}", headers={"content-type": "x"})
    refused(response, 400, "invalid_request")


async def test_a_proof_that_is_missing_doubled_or_for_another_url_is_refused(broker: Broker) -> None:
    caller, form = await fresh(broker)
    form_type = {"content-type": "application/x-www-form-urlencoded"}
    encoded = str(httpx.QueryParams(form))
    refused(await broker.client.post("/oauth/token", content=encoded, headers=form_type), 400, "invalid_dpop_proof")
    proof = caller.request().headers(caller.nonce, broker.now_s)["dpop"]
    twice = [*form_type.items(), ("dpop", proof), ("dpop", proof)]
    refused(await broker.client.post("/oauth/token", content=encoded, headers=twice), 400, "invalid_dpop_proof")
    foreign = caller.dpop.proof("POST", "https://evil.example/oauth/token", nonce=caller.nonce, now=broker.now_s)
    refused(await caller.post_form(form, dpop=foreign), 400, "invalid_dpop_proof")
    bound = caller.dpop.proof("POST", URL + "/oauth/token", nonce=caller.nonce, token="t", now=broker.now_s)
    refused(await caller.post_form(form, dpop=bound), 400, "invalid_dpop_proof")


async def test_a_proof_and_an_assertion_work_once(broker: Broker) -> None:
    caller, form = await fresh(broker)
    headers = caller.request().headers(caller.nonce, broker.now_s)
    assert (await caller.post_form(form, **headers)).status_code == 200

    refused(await caller.post_form(caller.request().form(broker.now_s), **headers), 400, "invalid_dpop_proof")
    refused(await caller.post_form(form), 401, "invalid_client")


async def test_a_copied_assertion_mints_nothing_for_another_key_on_any_replica(broker: Broker) -> None:
    _, form = await fresh(broker)
    thief = Caller(broker, broker.agent_key, DpopKey(), nonce=broker.nonces.current(broker.now_s))
    refused(await thief.post_form(form), 401, "invalid_client")
    async with broker.replica() as other:
        refused(await replace(thief, broker=other).post_form(form), 401, "invalid_client")


async def test_an_assertion_that_names_no_key_is_refused(broker: Broker) -> None:
    caller, form = await fresh(broker)
    form["subject_token"] = broker.agent_key.assertion(URL, broker.now_s)

    refused(await caller.post_form(form), 401, "invalid_client")


async def test_only_an_enrolled_workload_with_its_own_key_gets_a_token(broker: Broker) -> None:
    caller, form = await fresh(broker)
    jkt = caller.dpop.jkt
    unknown = WorkloadKey.generate("wkl_unknown").assertion(URL, broker.now_s, jkt=jkt)
    other_key = WorkloadKey.generate(broker.agent_key.workload_id).assertion(URL, broker.now_s, jkt=jkt)
    other_broker = broker.agent_key.assertion("https://other.example", broker.now_s, jkt=jkt)
    old = broker.agent_key.assertion(URL, broker.now_s - 400, jkt=jkt)
    for assertion in (unknown, other_key, other_broker, old):
        response = await caller.post_form({**form, "subject_token": assertion})
        refused(response, 401, "invalid_client")
        assert response.headers["www-authenticate"].startswith("DPoP ")


async def test_a_removed_workload_gets_no_token(broker: Broker) -> None:
    await broker.person("DELETE", f"/v1/workloads/{broker.agent_key.workload_id}")
    caller, form = await fresh(broker)

    refused(await caller.post_form(form), 401, "invalid_client")


async def test_one_workload_cannot_use_up_anothers_exchanges(tmp_path: Path) -> None:
    async with served(tmp_path, exchange_burst=3, exchange_per_s=0.5) as broker:
        codes = []
        for _ in range(4):
            caller, form = await fresh(broker)
            codes.append(await caller.post_form(form))
        refused(codes[-1], 429, "budget_exhausted")
        assert codes[-1].headers["retry-after"] == "2"
        other = await enrolled(broker.ports, "acme", "quiet", agents=("agent",))
        await Caller(broker, other).exchange()
        # Somebody who only claims to be the workload takes nothing from it.
        broker.hand.clock.tick(2_000)
        caller, form = await fresh(broker)
        forged = WorkloadKey.generate(broker.agent_key.workload_id)
        for _ in range(3):
            assertion = forged.assertion(URL, broker.now_s, jkt=caller.dpop.jkt)
            refused(await caller.post_form({**form, "subject_token": assertion}), 401, "invalid_client")
        assert (await caller.post_form(form)).status_code == 200


@dataclass
class BrokenSigner:
    """Publishes the real keys and signs nothing."""

    real: Signer
    fault: Exception

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        return await self.real.public_keys(purpose)

    async def sign(self, purpose: str, data: bytes) -> Signature:
        raise self.fault


async def test_a_signer_that_fails_is_a_named_error(broker: Broker) -> None:
    signer = BrokenSigner(broker.ports.signer, SignerUnavailable("the key file is gone", retry_after_ms=3_000))
    async with broker.replica(signer=signer) as other:
        caller, form = await fresh(other)
        response = await caller.post_form(form)

    refused(response, 503, "temporarily_unavailable")
    assert response.headers["retry-after"] == "3"


async def test_what_nobody_expected_is_oauths_server_error(broker: Broker) -> None:
    async with broker.replica(signer=BrokenSigner(broker.ports.signer, ZeroDivisionError("hunter2"))) as other:
        caller, form = await fresh(other)
        response = await caller.post_form(form)

    refused(response, 500, "server_error")
    assert "hunter2" not in response.text


async def test_a_key_that_is_rotated_while_signing_is_a_retry_not_a_token_that_nobody_can_verify(
    broker: Broker,
) -> None:
    class Rotating(BrokenSigner):
        async def sign(self, purpose: str, data: bytes) -> Signature:
            return replace(await self.real.sign(purpose, data), kid="newer")

    async with broker.replica(signer=Rotating(broker.ports.signer, ZeroDivisionError())) as other:
        caller, form = await fresh(other)
        response = await caller.post_form(form)

    refused(response, 503, "temporarily_unavailable")


async def test_many_exchanges_at_once_each_get_their_own_token(broker: Broker) -> None:
    callers = await asyncio.gather(*[broker.agent() for _ in range(10)])

    assert len({caller.token for caller in callers}) == 10
