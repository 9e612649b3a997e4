"""`run.resumable` over HTTP: what a scheduler needs to go on with runs, and who may see it."""

from __future__ import annotations

from typing import Any

from fakes.hand import ask
from fakes.served import Broker, Caller, enrolled

LEASE = 30_000


async def queued(agent: Caller, key: str = "job", **body: object) -> dict[str, Any]:
    response = await agent.call("POST", "/v1/runs/queue", {"agent": "agent", "run_key": key, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def resumable(caller: Caller, query: str = "&agent=agent") -> list[str]:
    response = await caller.call("GET", f"/v1/runs?resumable=true{query}")
    assert response.status_code == 200, response.text
    return [row["key"] for row in response.json()["runs"]]


async def shown(broker: Broker, run: str) -> dict[str, Any]:
    return dict((await broker.person("GET", f"/v1/runs/{run}")).json())


async def test_a_queued_run_is_found_opened_and_gone_from_the_list(broker: Broker) -> None:
    starter, worker = await broker.agent(), await broker.agent()
    for key in ("first", "second"):
        assert (await queued(starter, key, input={"order": key}))["queued"] is True
    assert await resumable(worker) == ["first", "second"]

    opened = await worker.open("first")

    assert (opened["input"], opened["epoch"]) == ({"order": "first"}, 2)
    assert await resumable(worker) == ["second"]
    known = await shown(broker, opened["run"])
    at = (known["resumable"], known["resumable_at"], known["tries"], known["park_detail"])
    assert at == (False, broker.hand.clock.now() + LEASE, 1, None)


async def test_a_crashed_run_is_resumable_when_its_lease_is_over_and_not_before(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    broker.hand.clock.tick(LEASE - 1)
    agent.nonce = broker.nonces.current(broker.now_s)
    assert await resumable(agent) == []
    broker.hand.clock.tick(1)
    assert await resumable(agent) == ["job"]
    assert (await shown(broker, run))["resumable_at"] == broker.hand.clock.now()


async def test_a_parked_run_waits_for_its_approval(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    asked = (await agent.begin(run, decision=ask(groups=["managers"]))).json()
    await agent.call("POST", f"/v1/runs/{run}/park", {"epoch": 1, "reason": "awaiting_approval"})
    assert await resumable(agent) == []
    assert (await shown(broker, run))["resumable_at"] is None
    digest = (await broker.person("GET", f"/v1/approvals/{asked['approval_id']}", who="ann")).json()["digest"]
    answer = {"verdict": "approve", "digest": digest}
    broker.hand.clock.tick(1_000)
    await broker.person("POST", f"/v1/approvals/{asked['approval_id']}/decide", answer, who="ann")

    assert await resumable(agent) == ["job"]

    known = await shown(broker, run)
    assert (known["resumable"], known["resumable_at"]) == (True, broker.hand.clock.now())


async def test_why_a_run_was_parked_is_shown_to_people_and_its_holder(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    await agent.call("POST", f"/v1/runs/{run}/park", {"epoch": 1, "reason": "set_aside", "detail": "ValueError: no"})
    assert (await shown(broker, run))["park_detail"] == "ValueError: no"
    assert (await agent.call("GET", f"/v1/runs/{run}")).json()["park_reason"] == "set_aside"
    assert await resumable(agent) == []
    receipt = (await broker.person("GET", f"/v1/runs/{run}/receipt")).json()
    assert "park.detail" in {one["field"] for one in receipt["disclosures"]}

    released = await broker.person("POST", "/v1/quarantine/release", {"run": run})

    assert released.status_code == 200
    assert await resumable(agent) == ["job"]


async def test_another_workload_of_the_agent_finds_the_run_and_a_stranger_does_not(broker: Broker) -> None:
    """To find it is not to have it: policy decides, and everything else about it stays hidden."""
    run = (await queued(await broker.agent()))["run"]
    colleague = await Caller(broker, await enrolled(broker.ports, "acme", "worker", agents=("agent",))).exchange()
    stranger = await Caller(broker, await enrolled(broker.ports, "acme", "stranger", agents=("other",))).exchange()
    foreign = await Caller(broker, await enrolled(broker.ports, "globex", "worker", agents=("agent",))).exchange()

    assert await resumable(colleague) == ["job"]
    assert await resumable(colleague, "") == []
    assert (await colleague.call("GET", "/v1/runs?agent=agent")).json()["runs"] == []
    for caller in (stranger, foreign):
        assert await resumable(caller) == []
        assert await resumable(caller, "") == []
    for caller in (colleague, stranger, foreign):
        assert (await caller.call("GET", f"/v1/runs/{run}")).json()["code"] == "unknown_run"


async def test_only_known_members_and_closed_bodies(broker: Broker) -> None:
    agent = await broker.agent()
    for path, body, code in (
        ("/v1/runs/queue", {"agent": "agent", "takeover": True}, "schema_violation"),
        ("/v1/runs", {"agent": "agent", "run_key": "x", "resume": True}, "unknown_run"),
        ("/v1/runs", {"agent": "agent", "resume": "yes"}, "schema_violation"),
    ):
        assert (await agent.call("POST", path, body)).json()["code"] == code
    assert (await agent.call("GET", "/v1/runs?resumable=perhaps")).json()["code"] == "invalid_request"
    assert await broker.runs() == []


async def test_a_repeated_queue_gives_the_stored_answer(broker: Broker) -> None:
    agent = await broker.agent()
    body = {"agent": "agent", "input": 1}
    first = await agent.call("POST", "/v1/runs/queue", body, key="once")
    again = await agent.call("POST", "/v1/runs/queue", body, key="once")
    assert again.json() == first.json()
    assert first.json()["run_key"].startswith("auto-")
    assert len(await broker.runs()) == 1
    assert (await agent.begin(first.json()["run"])).json()["code"] == "stale_epoch"
