"""What may be seen by whom, page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.hand import allow, ask
from fakes.served import Broker, Caller, enrolled, fresh_key, step_body
from stepgrant import canonical
from stepgrant_broker.usecases.operators import create_operator


async def other_agent(broker: Broker, tenant: str = "acme") -> Caller:
    """A process of another workload, enrolled for the same agent name."""
    return await Caller(broker, await enrolled(broker.ports, tenant, "other", agents=("agent",))).exchange()


VIEWS = ("", "/steps", "/steps/s1", "/entries", "/receipt")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_run_of_another_workload_or_tenant_does_not_exist(broker: Broker, view: str) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    await agent.begin(run)
    path = f"/v1/runs/{run}{view}"

    assert (await agent.call("GET", path)).status_code == 200
    for tenant in ("acme", "globex"):
        response = await (await other_agent(broker, tenant)).call("GET", path)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_run")


async def test_a_run_that_was_taken_over_is_still_seen_by_who_opened_it(broker: Broker) -> None:
    first = await broker.agent()
    run = (await first.open())["run"]
    broker.hand.clock.tick(31_000)
    second = await other_agent(broker)
    assert (await second.open())["resumed"] is True

    first.nonce = broker.nonces.current(broker.now_s)
    for caller in (first, second):
        assert (await caller.call("GET", f"/v1/runs/{run}")).json()["epoch"] == 2
    assert (await first.call("GET", "/v1/runs")).json()["runs"] == []
    assert [row["id"] for row in (await second.call("GET", "/v1/runs")).json()["runs"]] == [run]


async def test_people_of_any_role_see_the_tenant_and_nobody_elses(broker: Broker) -> None:
    run = (await (await broker.agent()).open())["run"]
    stranger = await create_operator(broker.ports, "globex", None, name="Gus", roles=["operator"])
    broker.people["gus"] = stranger["token"]

    for who in ("olga", "ann", "bob"):
        assert [row["id"] for row in (await broker.person("GET", "/v1/runs", who=who)).json()["runs"]] == [run]
    assert (await broker.person("GET", "/v1/runs", who="gus")).json()["runs"] == []
    for view in (*VIEWS, "/decisions/dec_1"):
        response = await broker.person("GET", f"/v1/runs/{run}{view}", who="gus")
        assert (response.status_code, response.json()["code"]) == (404, "unknown_run"), view
    assert (await broker.person("GET", "/v1/workloads", who="gus")).json()["workloads"] == []


async def test_pages_hold_together(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    for number in range(5):
        await agent.call("POST", f"/v1/runs/{run}/steps/p{number}/record", {"epoch": 1, "name": "n", "result": number})
    keys, after = [], ""
    while True:
        page = (await agent.call("GET", f"/v1/runs/{run}/steps?limit=2{after}")).json()
        keys += [row["key"] for row in page["steps"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert keys == ["p0", "p1", "p2", "p3", "p4"]

    entries, position = [], -1
    for _ in range(3):
        page = (await agent.call("GET", f"/v1/runs/{run}/entries?limit=2&after={position}")).json()
        entries += page["entries"]
        position = page["next"]
    assert (await agent.call("GET", f"/v1/runs/{run}/entries?limit=2&after={position}")).json()["next"] is None
    assert [row["seq"] for row in entries] == list(range(6))
    assert json.loads(canonical.b64u_decode(entries[0]["data"]))["type"] == "run_opened"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"), ("?limit=501", "limit"), ("?limit=x", "limit"), ("?limit=1&limit=2", "query"),
        ("?stat=open", "stat"), ("?state=opened", "state"), ("?after=", "after"), ("?after=nonsense", "after"),
        ("?agent=%FF", "query"), ("?" + "&".join(f"a{n}=1" for n in range(99)), "query"), ("?x=" + "y" * 5000, "query"),
    ],
)  # fmt: skip
async def test_a_query_that_is_not_understood_is_refused_by_name(broker: Broker, query: str, field: str) -> None:
    response = await broker.person("GET", f"/v1/runs{query}")

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert response.json()["field"] == field


async def test_an_approval_shows_the_action_that_is_asked_about_and_no_other(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    first = (await agent.begin(run, decision=ask())).json()["approval_id"]
    changed = step_body(ask())
    changed["action"]["args"] = {"amount": 6}
    second = (await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", changed)).json()["approval_id"]

    void = (await broker.person("GET", f"/v1/approvals/{first}")).json()
    asked = (await broker.person("GET", f"/v1/approvals/{second}")).json()
    assert (void["status"], void["action"]["args"]) == ("void", {"amount": 5})
    assert (asked["status"], asked["action"]["args"]) == ("pending", {"amount": 6})
    assert void["digest"] != asked["digest"]
    for shown in (void, asked):
        assert_bound_as_shown(shown)
    # The digest of the void question cannot answer the new one.
    answer = {"verdict": "approve", "digest": void["digest"]}
    refused = await broker.person("POST", f"/v1/approvals/{second}/decide", answer, who="ann")
    assert refused.json()["code"] == "digest_mismatch"
    assert (await broker.person("GET", f"/v1/approvals/{second}")).json()["answers"] == []


def assert_bound_as_shown(shown: dict[str, Any]) -> None:
    """Whoever reads it can compute the digest that the answer echoes, from what he read."""
    bound, action = shown["bound"], shown["action"]
    assert canonical.digest(bound) == shown["digest"]
    assert {name: bound[name] for name in ("run", "step", "effect", "issuer")} == {
        name: shown[name] for name in ("run", "step", "effect", "issuer")
    }
    if shown["resume"] is None:
        assert canonical.action_digest(action["tool"], action["resource"], action["args"]) == bound["digest"]
    else:
        assert canonical.digest(shown["resume"]) == bound["digest"]


async def test_an_approval_shows_the_issuer_with_what_it_is_given(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    decision = ask() | {"grant": {**allow()["grant"], "issuer": "static", "params": {"secret": "bank-key"}}}
    asked = (await agent.begin(run, decision=decision)).json()["approval_id"]

    shown = (await broker.person("GET", f"/v1/approvals/{asked}")).json()
    assert (shown["bound"]["issuer"], shown["bound"]["params"]) == ("static", {"secret": "bank-key"})
    assert shown["bound"]["tenant"] == "acme"
    assert_bound_as_shown(shown)


async def test_an_approval_of_a_resume_is_about_the_run(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open(labels={"stepgrant.run.resume": "ask"}))["run"]
    await agent.call("POST", f"/v1/runs/{run}/park", {"epoch": 1})
    heir = await broker.agent()
    body = {"agent": "agent", "run_key": "job"}
    asked = await heir.call("POST", "/v1/runs", body)
    assert (asked.status_code, asked.json()["code"]) == (403, "approval_required")
    shown = (await broker.person("GET", f"/v1/approvals/{asked.json()['approval_id']}")).json()
    assert (shown["step"], shown["tool"], shown["action"]["args"]) == ("~resume", "stepgrant.run.resume", None)
    assert shown["resume"] == {"run": run, "subject": "workload:acme/refunds"}
    assert_bound_as_shown(shown)
    answer = {"verdict": "approve", "digest": shown["digest"]}
    await broker.person("POST", f"/v1/approvals/{shown['id']}/decide", answer, who="ann")

    assert (await heir.call("POST", "/v1/runs", body)).json()["epoch"] == 2


async def test_a_repeated_answer_cannot_settle_an_approval_twice(broker: Broker) -> None:
    agent = await broker.agent()
    asked = (await agent.begin((await agent.open())["run"], decision=ask(quorum=2))).json()["approval_id"]
    digest = (await broker.person("GET", f"/v1/approvals/{asked}")).json()["digest"]
    answer, path, key = {"verdict": "approve", "digest": digest}, f"/v1/approvals/{asked}/decide", fresh_key()
    assert (await broker.person("POST", path, answer, who="ann", key=key)).json()["status"] == "pending"

    assert (await broker.person("POST", path, answer, who="ann", key=key)).json()["status"] == "pending"
    again = await broker.person("POST", path, answer, who="ann")
    assert (again.status_code, again.json()["code"]) == (409, "duplicate_request")
    assert (await broker.person("POST", path, answer, who="bob")).json()["status"] == "approved"


async def test_a_step_of_a_static_secret_brings_it_once(broker: Broker) -> None:
    await broker.person("PUT", "/v1/secrets/mail", {"value": "hunter2", "hosts": ["mail.example"]})
    agent = await broker.agent()
    run = (await agent.open())["run"]
    body = step_body(allow(issuer="static", params={"secret": "mail"}))
    key = fresh_key()
    first = await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", body, key=key)
    assert first.json()["credential"]["fields"]["value"] == "hunter2"
    again = await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", body, key=key)

    assert "hunter2" not in again.text
    for path in (f"/v1/runs/{run}/entries", f"/v1/runs/{run}/steps/s1", f"/v1/runs/{run}/receipt", "/v1/secrets"):
        assert "hunter2" not in (await broker.person("GET", path)).text
