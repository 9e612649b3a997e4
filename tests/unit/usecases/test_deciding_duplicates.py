"""A person's word on a suspected duplicate: who may give it, once, and when there is nothing to say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand, ask
from fakes.lost_tale import again, crashed, left_completed, opened
from fakes.tale import answer_approval
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import DuplicateRequest, Forbidden, RunEnded, UnknownRun, UnknownStep
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.usecases.decide_duplicate import decide_duplicate
from stepgrant_broker.usecases.end import end


async def decided(
    broker: Hand, run: str, verdict: str = "replay", *, who: PersonCaller | None = None, request: Request | None = None
) -> dict[str, Any]:
    request = request or broker.request()
    return await decide_duplicate(
        broker.ports, who or broker.operator, run, "new", verdict=verdict, note=None, request=request
    )


async def test_an_operator_answers_once(broker: Hand) -> None:
    run = await left_completed(broker)
    await again(broker, run, "new", 1)
    request = broker.request("replay")
    answer = await decided(broker, run, request=request)
    assert answer == {"step": "new", "of": "old", "verdict": "replay", "state": "adopted"}
    assert await decided(broker, run, request=request) == answer
    with pytest.raises(DuplicateRequest):
        await decided(broker, run, "run", request=replace(request, body=b"other"))
    assert (await broker.entries(run)).count("duplicate_decided") == 1
    assert (await again(broker, run, "new", 1))["result"] == "ok"


async def test_who_is_no_operator_does_not_answer_where_policy_named_nobody(broker: Hand) -> None:
    run = await left_completed(broker)
    await again(broker, run, "new", 1)
    before = await broker.entries(run)
    with pytest.raises(Forbidden):
        await decided(broker, run, who=broker.approver("ann", "finance"))
    assert await broker.entries(run) == before


async def test_who_could_approve_the_completed_step_answers(broker: Hand) -> None:
    run = await opened(broker)
    asked = await broker.begin(run, "old", ask(groups=["finance"]), id_source=IdSource.CALL_ID)
    await answer_approval(broker, run, str(asked["approval_id"]))
    await broker.begin(run, "old", ask(groups=["finance"]), id_source=IdSource.CALL_ID)
    await broker.complete(run, "old")
    await crashed(broker)
    await again(broker, run, "new", 1)
    for who in (broker.operator, broker.approver("bob", "legal")):
        with pytest.raises(Forbidden, match="people of finance"):
            await decided(broker, run, who=who)
    assert (await decided(broker, run, "run", who=broker.approver("ann", "finance")))["verdict"] == "run"


async def test_there_has_to_be_something_to_answer(broker: Hand) -> None:
    run = await left_completed(broker)
    with pytest.raises(UnknownStep):
        await decided(broker, run)
    with pytest.raises(UnknownRun):
        await decided(broker, "run_unknown")
    await again(broker, run, "new", 1)
    stranger = replace(broker.operator, tenant="globex")
    with pytest.raises(UnknownRun):
        await decided(broker, run, who=stranger)
    await end(broker.ports, broker.agent("k2"), run, 2, "completed", Result(None), broker.request())
    with pytest.raises(RunEnded):
        await decided(broker, run)
