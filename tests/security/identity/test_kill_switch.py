"""People can stop whoever came in by a rule: by the id of the workload, or by its name for all that have it."""

from __future__ import annotations

import base64
import json

import pytest

from door import METHODS, Door
from fakes.served import Caller


async def running(door: Door, method: str) -> tuple[Caller, str]:
    """A workload of this method with an access token; its id."""
    answer = await door.admits(door.token(method))
    claims = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[1] + "=="))
    nonce = door.broker.nonces.current(door.broker.now_s)
    caller = Caller(door.broker, door.broker.agent_key, door.dpop, answer["access_token"], nonce)
    return caller, str(claims["client_id"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["id", "name"])
async def test_the_switch_stops_its_runs_and_lets_it_open_none(door: Door, method: str, by: str) -> None:
    caller, workload = await running(door, method)
    run = (await caller.open())["run"]
    name = workload if by == "id" else "refunds"
    thrown = await door.broker.person("POST", "/v1/quarantine", {"workload": name})

    assert thrown.json()["runs"] == [run]
    for response in (
        await caller.begin(run),
        await caller.call("POST", "/v1/runs", {"agent": "agent", "run_key": "other"}),
        await (await running(door, method))[0].call("POST", "/v1/runs", {"agent": "agent", "run_key": "job"}),
    ):
        assert (response.status_code, response.json().get("code")) == (403, "quarantined"), response.text
    assert [one["state"] for one in await door.broker.runs()] == ["quarantined"]


async def test_a_name_stands_for_all_who_have_it_and_for_nobody_else(door: Door) -> None:
    one, _ = await running(door, "oidc")
    two, _ = await running(door, "kubernetes")
    other = await door.broker.agent()
    await door.broker.person("POST", "/v1/quarantine", {"workload": "refunds"})

    for caller in (one, two):
        response = await caller.call("POST", "/v1/runs", {"agent": "agent", "run_key": "job"})
        assert response.json()["code"] == "quarantined"
    # The enrolled workload of this door has the name, too.
    response = await other.call("POST", "/v1/runs", {"agent": "agent", "run_key": "job"})
    assert response.json()["code"] == "quarantined"
    server = await door.broker.server()
    assert (await server.call("GET", "/v1/runs")).status_code == 200


async def test_who_is_let_in_by_a_rule_cannot_be_removed_like_an_enrolment(door: Door) -> None:
    _, workload = await running(door, "oidc")
    response = await door.broker.person("DELETE", f"/v1/workloads/{workload}")

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert "take the rule out" in response.json()["detail"]
    await door.admits(door.token("oidc"))
