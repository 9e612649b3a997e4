"""Decisions made again from the record alone: whole lives, other times, other engines and texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fakes.clock import StandingClock
from fakes.hand import REGO, Hand, ask, hand
from fakes.lost_tale import lost_life
from fakes.records import GRANT, Entry, decisions_in, made, page_of, replay, texts, verdicts
from fakes.tale import answer_approval, whole_life
from fakes.world import AUDIENCE
from stepgrant_broker.domain.errors import PolicyDenied
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.policy.replaying import Verdict, Why
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.park import park

YEARS_AGO = 1_500_000_000_000
BY_TIME = REGO.replace(
    "decision := input.claimed.context.decide\n",
    'decision := object.union(input.claimed.context.decide, {"reasons": [at]})\n\n'
    'at := concat("_", ["at", format_int(input.time.unix, 10)])\n',
)
assert BY_TIME != REGO


@pytest.mark.parametrize(("life", "at_least"), [(whole_life, 10), (lost_life, 8)])
async def test_each_decision_of_a_whole_life_comes_out_as_recorded(
    broker: Hand, life: Callable[[Hand], Awaitable[str]], at_least: int
) -> None:
    found = await made(broker, await life(broker))
    assert [(one.recorded.seq, one.why, one.detail) for one in found if one.verdict is not Verdict.EQUAL] == []
    assert len(found) >= at_least
    assert {one.recorded.phase for one in found} >= {"open", "begin", "resume"}


async def test_an_opening_that_policy_refused_is_made_again_from_the_tenants_own_chain(broker: Hand) -> None:
    with pytest.raises(PolicyDenied):
        await broker.open(labels={"stepgrant.run.open": "no"})
    (refused,) = await made(broker, None)
    assert (refused.verdict, refused.recorded.phase, refused.recorded.effect) == (Verdict.EQUAL, "open", "deny")
    assert refused.recorded.run is None


async def test_time_is_that_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years ago an answer was valid for a minute, and policy put the second into its reason."""
    monkeypatch.setattr("fakes.hand.StandingClock", lambda: StandingClock(YEARS_AGO))
    async with hand(tmp_path) as broker:
        await _time_is_that_of_the_record(broker)


async def _time_is_that_of_the_record(broker: Hand) -> None:
    bundle = from_files({"stepgrant/main.rego": BY_TIME})
    revision = await next_revision(broker.ports, bundle.digest)
    await broker.engine.load(revision, bundle)
    await activate_policy(broker.ports, "acme", None, revision=revision, text=bundle.files)
    run = (await broker.open())["run"]
    question = ask(valid_for=60)
    asked = await broker.begin(run, decision=question)
    await answer_approval(broker, run, asked["approval_id"])
    broker.clock.tick(20_000)
    granted = await broker.begin(run, decision=question)
    assert granted["outcome"] == "run"

    found = await made(broker, run)

    assert [(one.verdict, one.recorded.effect) for one in found] == [
        (Verdict.EQUAL, "allow"), (Verdict.EQUAL, "require_approval"), (Verdict.EQUAL, "allow")
    ]  # fmt: skip
    assert found[-1].recorded.reasons[0] == f"at_{broker.clock.now() // 1000}"
    assert found[-1].recorded.reasons[1].startswith("approved:")


async def test_a_text_that_runs_no_more_is_a_difference_and_never_equal(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)
    known = decisions_in(await page_of(broker, run), run)
    silent = from_files({"stepgrant/main.rego": "package stepgrant\n\nother := 1\n"})

    with replay(await texts(broker), silent) as maker:
        found = maker.make(known)

    assert verdicts(found) == {Verdict.EQUAL: 2}
    assert [one.would_fail is not None or (one.would is not None and one.would.effect == "deny") for one in found] == [
        True, True
    ]  # fmt: skip
    assert all(one.changes for one in found)


async def test_an_engine_of_another_version_is_asked_for_and_missing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)

    def change(entry: Entry) -> None:
        if entry["type"] == "decision":
            entry["body"]["engine"] = "regorus/0.0.1"

    found = await made(broker, run, change)

    assert verdicts(found) == {Verdict.NOT_REPLAYABLE: 2}
    assert {one.why for one in found} == {Why.ENGINE_MISSING}
    assert [one.engine_assumed for one in found] == [True, False]


async def test_after_a_lost_reply_the_second_grant_counts_nothing_twice(broker: Hand) -> None:
    run = (await broker.open())["run"]
    key = broker.request()
    await broker.begin(run, decision=GRANT, request=key)
    again = await broker.begin(run, decision=GRANT, request=key, not_received=True)
    assert again["outcome"] == "run"
    await park(broker.ports, broker.agent(), run, 1, "requested", broker.request())
    await broker.open(who="k2")
    await broker.begin(run, decision=GRANT, who="k2", epoch=2)

    found = await made(broker, run)

    assert verdicts(found) == {Verdict.EQUAL: 5}
    assert AUDIENCE in {one.again.terms.get("audience") for one in found if one.again is not None}
