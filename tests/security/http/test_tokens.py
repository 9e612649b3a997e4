"""Access tokens over HTTP, attacked by name. Each attack leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.served import OPEN, URL, Broker, Caller, fresh_key
from forging import ForgersKey, es256
from stepgrant import _jose, canonical


def claims_of(caller: Caller) -> dict[str, Any]:
    return dict(_jose.parse(caller.token).unverified_claims())


async def test_a_bound_token_is_refused_as_bearer(broker: Broker) -> None:
    agent = await broker.agent()
    headers = agent.headers("POST", "/v1/runs") | {"authorization": f"Bearer {agent.token}"}
    response = await broker.refuses(headers, "invalid_token")

    assert response.headers["www-authenticate"].startswith("DPoP ")


@pytest.mark.parametrize("value", [b"", b"DPoP", b"DPoP ", b"DPoP x", b"DPoP a.b.c", b"Basic YTpi", b"DPoP \xe9.a.b"])
async def test_what_is_no_token_is_refused(broker: Broker, value: bytes) -> None:
    agent = await broker.agent()
    headers = {**agent.headers("POST", "/v1/runs"), "idempotency-key": fresh_key()}
    raw = [(name.encode(), text.encode()) for name, text in headers.items() if name != "authorization"]
    response = await broker.client.post("/v1/runs", json=OPEN, headers=[*raw, (b"authorization", value)])

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert await broker.runs() == []


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
        await broker.refuses(changed.headers("POST", "/v1/runs"), "invalid_token")


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

    await broker.refuses(changed.headers("POST", "/v1/runs"), "invalid_token")


async def test_a_token_of_another_type_or_tenant_is_refused(broker: Broker) -> None:
    agent = await broker.agent()
    other = {**claims_of(agent)["stepgrant"], "tenant": "globex"}
    for token in (
        await forged(broker, agent, None, {"typ": "dpop+jwt"}),
        await forged(broker, agent, None, {"typ": "JWT"}),
        await forged(broker, agent, None, {}, stepgrant=other),
    ):
        await broker.refuses(replace(agent, token=token).headers("POST", "/v1/runs"), "invalid_token")


async def test_a_grant_is_no_access_token(broker: Broker) -> None:
    agent = await broker.agent()
    run = await agent.open("first")
    grant = (await agent.begin(run["run"])).json()["credential"]["fields"]["token"]
    changed = replace(agent, token=grant)
    response = await broker.open_with(changed.headers("POST", "/v1/runs"))

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert [row["key"] for row in await broker.runs()] == ["first"]


async def test_an_expired_token_is_refused_also_when_it_was_remembered(broker: Broker) -> None:
    agent = await broker.agent()
    assert (await agent.call("GET", "/v1/runs")).status_code == 200
    broker.hand.clock.tick(306_000)
    agent.nonce = broker.nonces.current(broker.now_s)

    await broker.refuses(agent.headers("POST", "/v1/runs"), "invalid_token")
    late = await agent.call("GET", "/v1/runs")
    assert (late.status_code, late.json()["code"]) == (401, "invalid_token")


async def test_a_removed_workload_is_out_at_once_here_and_soon_elsewhere(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    async with broker.replica() as other:
        elsewhere = replace(agent, broker=other)
        assert (await elsewhere.call("GET", "/v1/runs")).status_code == 200
        assert (await broker.person("DELETE", f"/v1/workloads/{broker.agent_key.workload_id}")).status_code == 200

        here = await agent.call("GET", "/v1/runs")
        assert (here.status_code, here.json()["code"]) == (401, "invalid_token")
        # The other replica knows the token for a moment more.
        assert (await elsewhere.call("GET", "/v1/runs")).status_code == 200
        broker.hand.clock.tick(1_001)
        gone = await elsewhere.begin(run)
        assert (gone.status_code, gone.json()["code"]) == (401, "invalid_token")
    assert "grant_issued" not in await broker.entries(run)


async def test_what_a_removed_workload_would_record_is_refused_by_the_kill_switch(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    async with broker.replica() as other:
        elsewhere = replace(agent, broker=other)
        assert (await elsewhere.call("GET", "/v1/runs")).status_code == 200
        await broker.person("DELETE", f"/v1/workloads/{broker.agent_key.workload_id}")
        late = await elsewhere.begin(run)

    assert (late.status_code, late.json()["code"]) == (403, "quarantined")
    assert "grant_issued" not in await broker.entries(run)
