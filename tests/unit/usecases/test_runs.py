"""Open, resume, take over, heartbeat, park, end, cancel, quarantine, sweep."""

import asyncio

import pytest

from changing import replace
from fakes.hand import Hand, with_limits
from fakes.world import call
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    BudgetExhausted,
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    InvalidToken,
    LeaseHeld,
    PolicyDenied,
    RunEnded,
    StaleEpoch,
    StepInDoubt,
    TooLarge,
    UnknownRun,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.end import cancel_by_person, end
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.open import OpenCall, open_run
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.record import RecordCall, record


async def test_open_answers_what_an_agent_needs(broker: Hand) -> None:
    answer = await broker.open(input_bytes=b'{"a":1}', labels={"team": "x"}, principal="pat")
    assert (answer["epoch"], answer["resumed"], answer["input"], answer["has_input"]) == (1, False, {"a": 1}, True)
    assert answer["in_doubt"] == []
    assert await broker.entries(answer["run"]) == ["run_opened"]


async def test_the_stored_input_comes_back_to_whoever_resumes(broker: Hand) -> None:
    await broker.open(input_bytes=b'{"a":1}')
    broker.clock.tick(31_000)
    answer = await broker.open(who="k2")
    assert (answer["epoch"], answer["resumed"], answer["input"]) == (2, True, {"a": 1})


async def test_another_input_under_the_same_key_is_refused(broker: Hand) -> None:
    run = (await broker.open(input_bytes=b"1"))["run"]
    broker.clock.tick(31_000)
    with pytest.raises(DuplicateRequest):
        await broker.open(who="k2", input_bytes=b"2")
    assert await broker.entries(run) == ["run_opened"]


async def test_two_agents_opening_one_run_at_once_get_one_holder(broker: Hand) -> None:
    answers = await asyncio.gather(*(broker.open(who=f"k{n}") for n in range(4)), return_exceptions=True)
    opened = [answer for answer in answers if isinstance(answer, dict)]
    assert len(opened) == 1
    assert all(isinstance(answer, LeaseHeld) for answer in answers if not isinstance(answer, dict))


async def test_repeating_an_open_with_its_key_gives_the_same_epoch(broker: Hand) -> None:
    opening = OpenCall("job", "agent", None, None, {}, None, takeover=False)
    request = broker.request({}, "same")
    first = await open_run(broker.ports, broker.agent(), opening, request)
    assert await open_run(broker.ports, broker.agent(), opening, request) == first
    assert await broker.entries(first["run"]) == ["run_opened"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": ""}, "run_key"),
        ({"key": "a\nb"}, "run_key"),
        ({"agent": "bad name"}, "agent"),
        ({"labels": {str(n): "x" for n in range(33)}}, "labels"),
        ({"labels": {"a": "x" * 201}}, "labels"),
    ],
)
async def test_a_malformed_open_is_refused_by_member(broker: Hand, change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as bad:
        await broker.open(**change)  # type: ignore[arg-type]
    assert bad.value.field == field


async def test_a_large_input_and_a_foreign_agent_name_are_refused(broker: Hand) -> None:
    with pytest.raises(InvalidRequest, match="over"):
        await broker.open(input_bytes=b"x" * 300_000)
    with pytest.raises(Forbidden, match="other"):
        await broker.open(agent="other")


async def test_an_old_exchange_opens_nothing(broker: Hand) -> None:
    stale = replace(broker.agent(), attested_at=broker.clock.now() - 61_000)
    opening = OpenCall("job", "agent", None, None, {}, None, takeover=False)
    with pytest.raises(InvalidToken):
        await open_run(broker.ports, stale, opening, broker.request())


async def test_a_refused_open_enters_the_tenants_own_chain(broker: Hand) -> None:
    before = len(await broker.entries(None))
    with pytest.raises(PolicyDenied) as denied:
        await broker.open(labels={"stepgrant.run.open": "deny"})
    assert denied.value.more["reasons"] == ["no_rule_matched"]
    assert (await broker.entries(None))[before:] == ["decision"]
    with pytest.raises(PolicyDenied, match="approval_not_possible_on_open"):
        await broker.open(labels={"stepgrant.run.open": "ask"})


async def test_resume_names_the_steps_in_doubt(broker: Hand) -> None:
    run = (await broker.open())["run"]
    granted = await broker.begin(run)
    await broker.redeem(granted["grant"]["jti"])
    broker.clock.tick(31_000)
    answer = await broker.open(who="k2")
    (doubt,) = answer["in_doubt"]
    assert (doubt["step"], doubt["tool"], doubt["why"], doubt["options"]) == (
        "s1",
        "pay",
        "fenced",
        ["reconcile", "person"],
    )


async def test_a_heartbeat_extends_the_lease_and_writes_no_entry(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.clock.tick(20_000)
    answer = await heartbeat(broker.ports, broker.agent(), run, 1, broker.request())
    assert answer["lease_until"] == broker.clock.now() + 30_000
    broker.clock.tick(20_000)
    assert (await broker.begin(run))["outcome"] == "run"
    assert (await broker.entries(run))[0:2] == ["run_opened", "step_prepared"]


async def test_a_heartbeat_tells_a_fenced_caller(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.clock.tick(31_000)
    with pytest.raises(StaleEpoch):
        await heartbeat(broker.ports, broker.agent(), run, 1, broker.request())


async def test_park_revokes_and_lets_anybody_allowed_resume_at_once(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run)
    answer = await park(broker.ports, broker.agent(), run, 1, "awaiting_approval", broker.request())
    assert answer["state"] == "parked"
    assert (await broker.entries(run))[-2:] == ["grant_revoked", "run_parked"]
    assert (await broker.open(who="k2"))["epoch"] == 2
    with pytest.raises(InvalidRequest):
        await park(broker.ports, broker.agent("k2"), run, 2, "bored", broker.request())


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_end_is_final_and_repeatable_by_its_key(broker: Hand, status: str) -> None:
    run = (await broker.open())["run"]
    request = broker.request({}, "same")
    answer = await end(broker.ports, broker.agent(), run, 1, status, Result(b'"done"'), request)  # type: ignore[arg-type]
    assert answer["state"] == status
    assert await end(broker.ports, broker.agent(), run, 1, status, Result(b'"done"'), request) == answer  # type: ignore[arg-type]
    for refused in (broker.begin(run), broker.open(who="k2")):
        with pytest.raises(RunEnded) as over:
            await refused
        assert over.value.more == {"run": run, "state": status}


async def test_a_run_in_doubt_is_not_completed(broker: Hand) -> None:
    run = (await broker.open())["run"]
    granted = await broker.begin(run)
    await broker.redeem(granted["grant"]["jti"])
    before = await broker.entries(run)
    with pytest.raises(StepInDoubt):
        await end(broker.ports, broker.agent(), run, 1, "completed", Result(None), broker.request())
    assert await broker.entries(run) == before


async def test_an_operator_cancels_a_run(broker: Hand) -> None:
    run = (await broker.open())["run"]
    with pytest.raises(Forbidden):
        await cancel_by_person(broker.ports, broker.approver(), run, broker.request())
    request = broker.request({}, "same")
    answer = await cancel_by_person(broker.ports, broker.operator, run, request)
    assert answer["state"] == "cancelled"
    assert await cancel_by_person(broker.ports, broker.operator, run, request) == answer
    with pytest.raises(RunEnded) as over:
        await cancel_by_person(broker.ports, broker.operator, run, broker.request())
    assert over.value.more == {"run": run, "state": "cancelled"}


async def test_a_recorded_step_gives_the_same_plan_back(broker: Hand) -> None:
    run = (await broker.open())["run"]

    def plan(result: bytes, epoch: int = 1) -> RecordCall:
        return RecordCall("plan", epoch, "plan", b"{}", IdSource.EXPLICIT, Result(result))

    first = await record(broker.ports, broker.agent(), run, plan(b'["a"]'), broker.request())
    assert first == {"outcome": "recorded", "step": "plan", "attempt": 1}
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    again = await record(broker.ports, broker.agent("k2"), run, plan(b'["b"]', 2), broker.request())
    assert (again["outcome"], again["result"]) == ("replay", ["a"])
    with pytest.raises(TooLarge):
        await record(broker.ports, broker.agent("k2"), run, plan(b"x" * 300_000, 2), broker.request())
    broker.ports = with_limits(broker.ports, max_steps=1)
    other = replace(plan(b"1", 2), step="other")
    with pytest.raises(BudgetExhausted):
        await record(broker.ports, broker.agent("k2"), run, other, broker.request())


async def test_an_agent_of_another_tenant_does_not_see_the_run(broker: Hand) -> None:
    run = (await broker.open())["run"]
    stranger: AgentCaller = replace(broker.agent(), tenant="other")
    with pytest.raises(UnknownRun):
        await begin(broker.ports, stranger, run, call(effect=Effect.READ), broker.request())
    assert await broker.entries(run) == ["run_opened"]
