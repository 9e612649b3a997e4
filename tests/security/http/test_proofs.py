"""DPoP proofs over HTTP, attacked by name. Each attack leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.served import OPEN, Broker, fresh_key
from stepgrant._dpop import DpopKey


async def test_a_proof_works_once_for_a_change_on_every_replica(broker: Broker) -> None:
    agent = await broker.agent()
    headers = agent.headers("POST", "/v1/runs")
    assert (await broker.open_with(headers)).status_code == 200
    async with broker.replica() as other:
        for replica in (broker, other):
            again = await replica.send("POST", "/v1/runs", {**OPEN, "run_key": "second"}, headers=headers)
            assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")

    assert [run["key"] for run in await broker.runs()] == ["job"]


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
    await broker.refuses((await broker.agent()).headers(method, path), "invalid_dpop_proof")


@pytest.mark.parametrize("forwarded", ["host", "x-forwarded-host", "forwarded", "x-forwarded-proto", "x-original-url"])
async def test_only_the_configured_url_counts_whatever_a_header_says(broker: Broker, forwarded: str) -> None:
    agent = await broker.agent()
    values = {"forwarded": "host=evil.example;proto=https", "x-forwarded-proto": "https", "x-original-url": "/v1/x"}
    said = {forwarded: values.get(forwarded, "evil.example")}
    proof = agent.dpop.proof("POST", "https://evil.example/v1/runs", token=agent.token, nonce=agent.nonce)

    await broker.refuses({"authorization": f"DPoP {agent.token}", "dpop": proof, **said}, "invalid_dpop_proof")
    # Nor does such a header make a good proof bad.
    assert (await broker.open_with({**agent.headers("POST", "/v1/runs"), **said})).status_code == 200


async def test_a_proof_for_another_token_is_refused(broker: Broker) -> None:
    agent, other = await broker.agent(), await broker.agent()
    headers = agent.headers("POST", "/v1/runs", token=other.token)

    await broker.refuses(headers, "invalid_dpop_proof")
    await broker.refuses(agent.headers("POST", "/v1/runs", token=None), "invalid_dpop_proof")


async def test_a_stolen_token_is_worthless_without_its_key(broker: Broker) -> None:
    victim = await broker.agent()
    thief = replace(victim, dpop=DpopKey())

    await broker.refuses(thief.headers("POST", "/v1/runs"), "invalid_dpop_proof")


async def test_two_proofs_are_refused_not_chosen_from(broker: Broker) -> None:
    agent = await broker.agent()
    good = agent.headers("POST", "/v1/runs")
    headers = [*good.items(), ("dpop", agent.headers("POST", "/v1/runs")["dpop"]), ("idempotency-key", fresh_key())]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, "invalid_dpop_proof")
    assert await broker.runs() == []


async def test_two_tokens_are_refused_not_chosen_from(broker: Broker) -> None:
    agent = await broker.agent()
    headers = [
        *agent.headers("POST", "/v1/runs").items(),
        ("authorization", f"Bearer {broker.people['olga']}"),
        ("idempotency-key", fresh_key()),
    ]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=headers)

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert await broker.runs() == []


async def test_a_missing_or_foreign_nonce_is_told_the_current_one(broker: Broker) -> None:
    agent = await broker.agent()
    for nonce in (None, "AAAAAAAAAAAAAAAAAAAAAA", "é"):
        response = await broker.refuses(agent.headers("POST", "/v1/runs", nonce=nonce), "use_dpop_nonce")
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
    response = await broker.refuses(agent.headers("PUT", "/v1/runs", nonce=None), "invalid_dpop_proof")

    assert "dpop-nonce" not in response.headers
