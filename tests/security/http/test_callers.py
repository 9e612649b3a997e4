"""Who calls: tokens, proofs and people's tokens over HTTP, attacked by name. Each attack leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from fakes.hand import ask
from fakes.served import URL, Broker, Caller, enrolled, fresh_key
from forging import ForgersKey, es256
from stepgrant import _jose, canonical
from stepgrant._dpop import DpopKey
from stepgrant_broker.api.app import ENDPOINTS
from stepgrant_broker.api.routing import Needs

OPEN = {"agent": "agent", "run_key": "job"}


async def runs(broker: Broker) -> list[Any]:
    found = (await broker.person("GET", "/v1/runs")).json()["runs"]
    return list(found)


async def open_with(broker: Broker, headers: dict[str, str]) -> httpx.Response:
    return await broker.send("POST", "/v1/runs", OPEN, headers=headers)


async def refused(broker: Broker, headers: dict[str, str], code: str, status: int = 401) -> httpx.Response:
    response = await open_with(broker, headers)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert await runs(broker) == []
    return response


def claims_of(caller: Caller) -> dict[str, Any]:
    return dict(_jose.parse(caller.token).unverified_claims())


# ------------------------------------------------------------------------------------------------------------- proofs


async def test_a_proof_works_once_for_a_change_on_every_replica(broker: Broker) -> None:
    agent = await broker.agent()
    headers = agent.headers("POST", "/v1/runs")
    assert (await open_with(broker, headers)).status_code == 200
    async with broker.replica() as other:
        for replica in (broker, other):
            again = await replica.send("POST", "/v1/runs", {**OPEN, "run_key": "second"}, headers=headers)
            assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")

    assert [run["key"] for run in await runs(broker)] == ["job"]


async def test_a_proof_works_once_for_a_read(broker: Broker) -> None:
    agent = await broker.agent()
    headers = agent.headers("GET", "/v1/runs")

    assert (await broker.send("GET", "/v1/runs", headers=headers)).status_code == 200
    again = await broker.send("GET", "/v1/runs", headers=headers)
    assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/runs"), ("POST", "/v1/run"), ("POST", "/v1/runs/x"), ("POST", "/V1/runs"), ("PUT", "/v1/runs")],
)
async def test_a_proof_for_another_request_is_refused(broker: Broker, method: str, path: str) -> None:
    await refused(broker, (await broker.agent()).headers(method, path), "invalid_dpop_proof")


@pytest.mark.parametrize("forwarded", ["host", "x-forwarded-host", "forwarded", "x-forwarded-proto", "x-original-url"])
async def test_only_the_configured_url_counts_whatever_a_header_says(broker: Broker, forwarded: str) -> None:
    agent = await broker.agent()
    values = {"forwarded": "host=evil.example;proto=https", "x-forwarded-proto": "https", "x-original-url": "/v1/x"}
    said = {forwarded: values.get(forwarded, "evil.example")}
    proof = agent.dpop.proof("POST", "https://evil.example/v1/runs", token=agent.token, nonce=agent.nonce)

    await refused(broker, {"authorization": f"DPoP {agent.token}", "dpop": proof, **said}, "invalid_dpop_proof")
    # Nor does such a header make a good proof bad.
    assert (await open_with(broker, {**agent.headers("POST", "/v1/runs"), **said})).status_code == 200


async def test_a_proof_for_another_token_is_refused(broker: Broker) -> None:
    agent, other = await broker.agent(), await broker.agent()
    headers = agent.headers("POST", "/v1/runs", token=other.token)

    await refused(broker, headers, "invalid_dpop_proof")
    await refused(broker, agent.headers("POST", "/v1/runs", token=None), "invalid_dpop_proof")


async def test_a_stolen_token_is_worthless_without_its_key(broker: Broker) -> None:
    victim = await broker.agent()
    thief = replace(victim, dpop=DpopKey())

    await refused(broker, thief.headers("POST", "/v1/runs"), "invalid_dpop_proof")


async def test_two_proofs_are_refused_not_chosen_from(broker: Broker) -> None:
    agent = await broker.agent()
    good = agent.headers("POST", "/v1/runs")
    headers = [*good.items(), ("dpop", agent.headers("POST", "/v1/runs")["dpop"]), ("idempotency-key", fresh_key())]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, "invalid_dpop_proof")
    assert await runs(broker) == []


async def test_two_tokens_are_refused_not_chosen_from(broker: Broker) -> None:
    agent = await broker.agent()
    headers = [*agent.headers("POST", "/v1/runs").items(), ("authorization", f"Bearer {broker.people['olga']}")]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=headers)

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert await runs(broker) == []


async def test_a_missing_or_foreign_nonce_is_told_the_current_one(broker: Broker) -> None:
    agent = await broker.agent()
    for nonce in (None, "AAAAAAAAAAAAAAAAAAAAAA", "é"):
        response = await refused(broker, agent.headers("POST", "/v1/runs", nonce=nonce), "use_dpop_nonce")
        assert response.headers["dpop-nonce"] == broker.nonces.current(broker.now_s)
        assert response.headers["www-authenticate"] == 'DPoP error="use_dpop_nonce", algs="ES256 EdDSA"'


async def test_a_nonce_lives_two_epochs_and_an_ageing_one_is_replaced(broker: Broker) -> None:
    agent = await broker.agent()
    first = agent.nonce
    response = await agent.call("GET", "/v1/runs")
    assert "dpop-nonce" not in response.headers

    broker.hand.clock.tick(300_000)
    agent.nonce = broker.nonces.current(broker.now_s)
    await agent.exchange()
    agent.nonce = first
    aged = await agent.call("GET", "/v1/runs")
    assert aged.status_code == 200
    assert aged.headers["dpop-nonce"] == broker.nonces.current(broker.now_s)

    broker.hand.clock.tick(300_000)
    await agent.exchange()
    agent.nonce = first
    assert (await agent.call("GET", "/v1/runs")).json()["code"] == "use_dpop_nonce"


async def test_a_wrong_proof_learns_no_nonce(broker: Broker) -> None:
    agent = await broker.agent()
    response = await refused(broker, agent.headers("PUT", "/v1/runs", nonce=None), "invalid_dpop_proof")

    assert "dpop-nonce" not in response.headers


# ------------------------------------------------------------------------------------------------------------- tokens


async def test_a_bound_token_is_refused_as_bearer(broker: Broker) -> None:
    agent = await broker.agent()
    headers = agent.headers("POST", "/v1/runs") | {"authorization": f"Bearer {agent.token}"}
    response = await refused(broker, headers, "invalid_token")

    assert response.headers["www-authenticate"].startswith("DPoP ")


@pytest.mark.parametrize("value", [b"", b"DPoP", b"DPoP ", b"DPoP x", b"DPoP a.b.c", b"Basic YTpi", b"DPoP \xe9.a.b"])
async def test_what_is_no_token_is_refused(broker: Broker, value: bytes) -> None:
    agent = await broker.agent()
    headers = {**agent.headers("POST", "/v1/runs"), "idempotency-key": fresh_key()}
    raw = [(name.encode(), text.encode()) for name, text in headers.items() if name != "authorization"]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=[*raw, (b"authorization", value)])

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert await runs(broker) == []


async def forged(broker: Broker, agent: Caller, key: ForgersKey | None, header: dict[str, Any], **claims: Any) -> str:  # noqa: ANN401
    """A token with these members changed, signed by `key`, or by the broker itself."""
    wanted = {**claims_of(agent), **claims}
    if key is not None:
        return key.jws(header, wanted)
    (public,) = await broker.ports.signer.public_keys("access")
    head = _jose.encode_segment({"alg": public.alg, "kid": public.kid, "typ": "at+jwt", **header})
    signing_input = f"{head}.{_jose.encode_segment(wanted)}"
    signature = await broker.ports.signer.sign("access", signing_input.encode())
    return f"{signing_input}.{canonical.b64u(signature.value)}"


async def test_a_forged_token_is_refused(broker: Broker) -> None:
    agent = await broker.agent()
    (public,) = await broker.ports.signer.public_keys("access")
    ours = {"alg": "ES256", "kid": public.kid, "typ": "at+jwt"}
    none = (await forged(broker, agent, es256(), {**ours, "alg": "none"})).rpartition(".")[0]
    for token in (
        await forged(broker, agent, es256(), ours),
        await forged(broker, agent, es256(), {**ours, "kid": "other"}),
        await forged(broker, agent, es256(), {**ours, "alg": "HS256"}),
        none + ".",
        none + ".AAAA",
    ):
        changed = replace(agent, token=token)
        await refused(broker, changed.headers("POST", "/v1/runs"), "invalid_token")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "https://tool.example"},
        {"aud": [URL]},
        {"exp": 1_700_000_000},
        {"exp": 1_900_000_000},
        {"iat": 1_900_000_000},
        {"client_id": "wkl_unknown"},
        {"stepgrant": None},
        {"stepgrant": {"tenant": "acme"}},
        {"cnf": {}},
        {"authorization_details": []},
    ],
    ids=str,
)
async def test_a_token_of_ours_for_something_else_is_refused(broker: Broker, claims: dict[str, Any]) -> None:
    agent = await broker.agent()
    changed = replace(agent, token=await forged(broker, agent, None, {}, **claims))

    await refused(broker, changed.headers("POST", "/v1/runs"), "invalid_token")


async def test_a_token_of_another_type_or_tenant_is_refused(broker: Broker) -> None:
    agent = await broker.agent()
    other = {**claims_of(agent)["stepgrant"], "tenant": "globex"}
    for token in (
        await forged(broker, agent, None, {"typ": "dpop+jwt"}),
        await forged(broker, agent, None, {"typ": "JWT"}),
        await forged(broker, agent, None, {}, stepgrant=other),
    ):
        await refused(broker, replace(agent, token=token).headers("POST", "/v1/runs"), "invalid_token")


async def test_a_grant_is_no_access_token(broker: Broker) -> None:
    agent = await broker.agent()
    run = await agent.open("first")
    grant = (await agent.begin(run["run"])).json()["credential"]["fields"]["token"]
    changed = replace(agent, token=grant)
    response = await open_with(broker, changed.headers("POST", "/v1/runs"))

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert [row["key"] for row in await runs(broker)] == ["first"]


async def test_an_expired_token_is_refused_also_when_it_was_remembered(broker: Broker) -> None:
    agent = await broker.agent()
    assert (await agent.call("GET", "/v1/runs")).status_code == 200
    broker.hand.clock.tick(306_000)
    agent.nonce = broker.nonces.current(broker.now_s)

    await refused(broker, agent.headers("POST", "/v1/runs"), "invalid_token")


async def test_a_removed_workload_is_out_at_once_here_and_soon_elsewhere(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    async with broker.replica() as other:
        elsewhere = replace(agent, broker=other)
        assert (await elsewhere.call("GET", "/v1/runs")).status_code == 200
        assert (await broker.person("DELETE", f"/v1/workloads/{broker.agent_key.workload_id}")).status_code == 200

        here = await agent.call("GET", "/v1/runs")
        assert (here.status_code, here.json()["code"]) == (401, "invalid_token")
        # The other replica still knows the token for a moment; what it would record is refused by the kill switch.
        late = await elsewhere.begin(run)
        assert (late.status_code, late.json()["code"]) == (403, "quarantined")
        broker.hand.clock.tick(1_001)
        gone = await elsewhere.call("GET", "/v1/runs")
        assert (gone.status_code, gone.json()["code"]) == (401, "invalid_token")
    assert "grant_issued" not in await broker.entries(run)


# ------------------------------------------------------------------------------------------------ workloads and people


async def test_a_workload_can_do_nothing_that_is_for_people(broker: Broker) -> None:
    agent = await broker.agent()
    before = await broker.entries(None)
    for endpoint in ENDPOINTS:
        if endpoint.needs is Needs.PERSON:
            path = endpoint.path.replace("{", "").replace("}", "")
            response = await agent.call(endpoint.method, path)
            assert (response.status_code, response.json()["code"]) == (403, "forbidden"), path
    assert await broker.entries(None) == before


async def test_a_person_can_do_nothing_that_is_for_workloads(broker: Broker) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.needs is Needs.AGENT:
            path = endpoint.path.replace("{", "").replace("}", "")
            response = await broker.person(endpoint.method, path)
            assert (response.status_code, response.json()["code"]) == (403, "forbidden"), path
    assert await runs(broker) == []


async def test_only_roles_decide_what_a_person_may_do(broker: Broker) -> None:
    for method, path, body in (
        ("POST", "/v1/quarantine", {"agent": "agent"}),
        ("POST", "/v1/quarantine/release", {"agent": "agent"}),
        ("POST", "/v1/operators", {"name": "Eve", "roles": ["operator"]}),
        ("PUT", "/v1/secrets/mail", {"value": "v", "hosts": ["h"]}),
        ("POST", "/v1/grants/grn_x/revoke", {}),
        ("GET", "/v1/ledger/entries", None),
        ("DELETE", f"/v1/workloads/{broker.agent_key.workload_id}", None),
    ):
        response = await broker.person(method, path, body, who="bob")
        assert (response.status_code, response.json()["code"]) == (403, "forbidden"), path
    assert (await (await broker.agent()).call("GET", "/v1/runs")).status_code == 200


async def test_an_operator_cannot_approve(broker: Broker) -> None:
    agent = await broker.agent()
    asked = (await agent.begin((await agent.open())["run"], decision=ask())).json()["approval_id"]
    digest = (await broker.person("GET", f"/v1/approvals/{asked}")).json()["digest"]
    response = await broker.person("POST", f"/v1/approvals/{asked}/decide", {"verdict": "approve", "digest": digest})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert (await broker.person("GET", f"/v1/approvals/{asked}")).json()["status"] == "pending"


@pytest.mark.parametrize("token", ["", "sgo_", "sgo_" + "0" * 64, "x" * 5000])
async def test_an_unknown_operator_token_is_refused(broker: Broker, token: str) -> None:
    response = await broker.send("GET", "/v1/operators", headers={"authorization": f"Bearer {token}"})

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_removed_operator_is_out_at_once(broker: Broker) -> None:
    ann = next(row for row in (await broker.person("GET", "/v1/operators")).json()["operators"] if row["name"] == "Ann")
    assert (await broker.person("GET", "/v1/runs", who="ann")).status_code == 200
    await broker.person("DELETE", f"/v1/operators/{ann['id']}")

    assert (await broker.person("GET", "/v1/runs", who="ann")).json()["code"] == "invalid_token"


async def test_the_approver_is_the_tokens_owner_whatever_the_body_says(broker: Broker) -> None:
    agent = await broker.agent()
    asked = (await agent.begin((await agent.open())["run"], decision=ask())).json()["approval_id"]
    digest = (await broker.person("GET", f"/v1/approvals/{asked}")).json()["digest"]
    named = {"verdict": "approve", "digest": digest, "operator": "opr_bob"}
    response = await broker.person("POST", f"/v1/approvals/{asked}/decide", named, who="ann")

    assert (response.status_code, response.json()["code"]) == (422, "schema_violation")
    assert (await broker.person("GET", f"/v1/approvals/{asked}")).json()["answers"] == []


async def test_another_tenants_things_do_not_exist(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    stranger = Caller(broker, await enrolled(broker.ports, "globex", "spy", agents=("agent",)))
    await stranger.exchange()
    response = await stranger.call("GET", f"/v1/runs/{run}")

    assert (response.status_code, response.json()["code"]) == (404, "unknown_run")
