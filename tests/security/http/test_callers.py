"""What is for workloads and what is for people, and that neither can stand in for the other."""

from __future__ import annotations

import pytest

from fakes.hand import ask
from fakes.served import Broker, Caller, enrolled
from stepgrant_broker.api.app import ENDPOINTS
from stepgrant_broker.api.routing import Needs


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
    assert await broker.runs() == []


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

    assert (response.status_code, response.json().get("code")) == (422, "schema_violation")
    assert (await broker.person("GET", f"/v1/approvals/{asked}")).json()["answers"] == []


async def test_another_tenants_things_do_not_exist(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    stranger = Caller(broker, await enrolled(broker.ports, "globex", "spy", agents=("agent",)))
    await stranger.exchange()
    response = await stranger.call("GET", f"/v1/runs/{run}")

    assert (response.status_code, response.json()["code"]) == (404, "unknown_run")

    # What somebody should go on with is listed to all who are enrolled for its agent: of its own tenant.
    broker.hand.clock.tick(31_000)
    for caller, seen in ((agent, [run]), (stranger, [])):
        listed = await caller.call("GET", "/v1/runs?resumable=true&agent=agent")
        assert [row["id"] for row in listed.json()["runs"]] == seen
