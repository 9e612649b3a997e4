"""Lost call ids over HTTP: the answers, the person's word, and that a workload cannot give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from fakes.hand import allow
from fakes.served import Broker, Caller, served, step_body


async def left(broker: Broker, *, completed: bool) -> tuple[Caller, str]:
    """A run in its second epoch, and its holder; `old` was completed in the first one, or its outcome is unknown."""
    agent = await broker.agent()
    run = str((await agent.open())["run"])
    # Its use cannot be proven, so a failure that says nothing leaves a doubt.
    answer = await agent.begin(run, "old", decision=allow(redeem="optional"), id_source="call_id")
    assert answer.json()["outcome"] == "run"
    at = {"epoch": 1, "attempt": 1}
    if completed:
        await agent.call("POST", f"/v1/runs/{run}/steps/old/complete", {**at, "result": {"paid": 1}})
    else:
        failed = await agent.call("POST", f"/v1/runs/{run}/steps/old/fail", {**at, "outcome": "unknown"})
        assert failed.json()["state"] == "in_doubt"
    broker.hand.clock.tick(400_000)
    again = await broker.agent()
    await again.open()
    return again, run


async def begun(agent: Caller, run: str, step: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    return dict((await agent.begin(run, step, epoch=2, id_source="call_id", **more)).json())


async def told(broker: Broker, run: str, step: str, body: dict[str, Any], **more: Any) -> httpx.Response:  # noqa: ANN401
    return await broker.person("POST", f"/v1/runs/{run}/steps/{step}/duplicate", body, **more)


async def test_a_person_says_what_it_is(tmp_path: Path) -> None:
    async with served(tmp_path) as broker:
        agent, run = await left(broker, completed=True)
        assert await begun(agent, run, "new") == {
            "outcome": "suspected_duplicate", "step": "new", "of": "old", "options": ["replay", "run"]
        }  # fmt: skip
        shown = (await broker.person("GET", f"/v1/runs/{run}/steps/new")).json()
        assert (shown["state"], shown["duplicate_of"], shown["suspected"]) == ("prepared", "old", True)

        answer = await told(broker, run, "new", {"verdict": "replay", "note": "one was ordered"})
        assert (answer.status_code, answer.json()["state"]) == (200, "adopted")
        shown = (await broker.person("GET", f"/v1/runs/{run}/steps/new")).json()
        assert (shown["state"], shown["same_as"], shown["suspected"]) == ("adopted", "old", False)
        replayed = await begun(agent, run, "new")
        assert (replayed["outcome"], replayed["step"], replayed["result"]) == ("replay", "old", {"paid": 1})


async def test_a_workload_can_never_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as broker:
        agent, run = await left(broker, completed=True)
        await begun(agent, run, "new")
        before = await broker.entries(run)
        path = f"/v1/runs/{run}/steps/new/duplicate"
        refused = await agent.call("POST", path, {"verdict": "run"})
        assert (refused.status_code, refused.json().get("code")) == (403, "forbidden")
        for who in ("ann", "bob"):
            refused = await told(broker, run, "new", {"verdict": "run"}, who=who)
            assert (refused.status_code, refused.json().get("code")) == (403, "forbidden")
        assert await broker.entries(run) == before


async def test_an_answer_has_one_of_two_words(tmp_path: Path) -> None:
    async with served(tmp_path) as broker:
        agent, run = await left(broker, completed=True)
        await begun(agent, run, "new")
        before = await broker.entries(run)
        for body, code in (
            ({"verdict": "perhaps"}, "schema_violation"),
            ({}, "schema_violation"),
            ({"verdict": "run", "epoch": 2}, "schema_violation"),
            ({"verdict": "run", "note": "x" * 2001}, "invalid_request"),
        ):
            assert (await told(broker, run, "new", body)).json()["code"] == code
        assert (await told(broker, run, "old", {"verdict": "run"})).json()["code"] == "invalid_request"
        assert (await told(broker, run, "none", {"verdict": "run"})).json()["code"] == "unknown_step"
        assert await broker.entries(run) == before


async def test_what_is_in_doubt_is_taken_up_once_and_blocks_others(tmp_path: Path) -> None:
    async with served(tmp_path) as broker:
        agent, run = await left(broker, completed=False)
        shown = (await broker.person("GET", f"/v1/runs/{run}/steps/old")).json()
        taken = await begun(agent, run, "new")
        assert (taken["outcome"], taken["step"], "blocked" in taken) == ("in_doubt", "old", False)
        waits = await begun(agent, run, "other", action={**step_body()["action"], "args": {"amount": 9}})
        assert (waits["outcome"], waits["step"], waits["blocked"]) == ("in_doubt", "old", True)
        said = {"attempt": shown["attempt"], "verdict": "done", "result": 7}
        drift = await broker.person("POST", f"/v1/runs/{run}/steps/new/reconcile", said)
        assert (drift.status_code, drift.json()["code"]) == (409, "step_drift")
        await broker.person("POST", f"/v1/runs/{run}/steps/old/reconcile", said)
        replayed = await begun(agent, run, "new")
        assert (replayed["outcome"], replayed["step"], replayed["result"]) == ("replay", "old", 7)
