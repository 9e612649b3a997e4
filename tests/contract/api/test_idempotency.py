"""The Idempotency-Key: needed by every change, and the same call again gets the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.served import Broker, fresh_key, step_body
from stepgrant_broker.api.app import ENDPOINTS
from stepgrant_broker.api.routing import Needs

KEYED = [endpoint for endpoint in ENDPOINTS if endpoint.keyed]


async def test_no_change_goes_without_a_key(broker: Broker) -> None:
    agent = await broker.agent()
    before = await broker.entries(None)
    for endpoint in KEYED:
        path = endpoint.path.replace("{", "").replace("}", "")
        if endpoint.needs is Needs.PERSON:
            response = await broker.person(endpoint.method, path, key="")
        else:
            response = await agent.call(endpoint.method, path, key="")
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), path
        assert response.json()["field"] == "Idempotency-Key", path
    assert await broker.entries(None) == before


@pytest.mark.parametrize("key", ["x" * 201, "a\tb", "\x7f"])
async def test_a_key_that_is_too_long_or_not_printable_is_refused(broker: Broker, key: str) -> None:
    agent = await broker.agent()
    response = await agent.call("POST", "/v1/runs", {"agent": "agent"}, key=key)

    assert (response.status_code, response.json()["field"]) == (400, "Idempotency-Key")
    assert (await broker.person("GET", "/v1/runs")).json()["runs"] == []


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("/steps/plan/record", {"epoch": 1, "name": "plan", "result": 1}),
    ("/steps/s1/prepare", step_body()),
    ("/park", {"epoch": 1}),
    ("/complete", {"epoch": 1, "result": {"a": 1.5}}),
    ("/cancel", {"epoch": 1}),
]


@pytest.mark.parametrize(("path", "body"), CHANGES, ids=lambda value: value if isinstance(value, str) else "")
async def test_the_same_call_again_gets_the_same_answer_and_writes_nothing(
    broker: Broker, path: str, body: dict[str, Any]
) -> None:
    agent = await broker.agent()
    run, key = (await agent.open())["run"], fresh_key()
    first = await agent.call("POST", f"/v1/runs/{run}{path}", body, key=key)
    entries = await broker.entries(run)
    broker.hand.clock.tick(1_000)
    again = await agent.call("POST", f"/v1/runs/{run}{path}", body, key=key)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert await broker.entries(run) == entries


async def test_opening_again_with_the_same_key_returns_the_same_epoch(broker: Broker) -> None:
    agent, key = await broker.agent(), fresh_key()
    for body in ({"agent": "agent", "run_key": "job"}, {"agent": "agent"}):
        first = await agent.call("POST", "/v1/runs", body, key=key)
        again = await agent.call("POST", "/v1/runs", body, key=key)
        assert first.json() == again.json()
        assert first.json()["epoch"] == 1
    assert len((await broker.person("GET", "/v1/runs")).json()["runs"]) == 2


async def test_a_workload_is_enrolled_once_for_one_key(broker: Broker) -> None:
    body, key = {"name": "new", "jwk": broker.agent_key.public_jwk, "agents": ["agent"]}, fresh_key()
    first = await broker.person("POST", "/v1/workloads", body, key=key)
    again = await broker.person("POST", "/v1/workloads", body, key=key)
    other = await broker.person("POST", "/v1/workloads", {**body, "name": "newer"}, key=key)

    assert first.json() == again.json()
    assert (other.status_code, other.json()["code"]) == (409, "duplicate_request")
    names = [row["name"] for row in (await broker.person("GET", "/v1/workloads")).json()["workloads"]]
    assert names.count("new") == 1
    assert "newer" not in names


async def test_an_operators_token_is_never_given_twice(broker: Broker) -> None:
    body, key = {"name": "Eve", "roles": ["approver"]}, fresh_key()
    first = await broker.person("POST", "/v1/operators", body, key=key)
    again = await broker.person("POST", "/v1/operators", body, key=key)

    assert first.json()["token"] not in again.text


async def test_a_change_takes_no_query(broker: Broker) -> None:
    agent = await broker.agent()
    response = await agent.call("POST", "/v1/runs?dry_run=true", {"agent": "agent"})

    assert (response.status_code, response.json()["field"]) == (400, "query")
    assert (await broker.person("GET", "/v1/runs")).json()["runs"] == []
