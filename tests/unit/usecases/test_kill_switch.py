"""The kill switch and the sweeper."""

from dataclasses import replace

import pytest

from fakes.hand import Hand, allow
from stepgrant_broker.domain.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Quarantined,
    UnknownRun,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.enroll import unenroll
from stepgrant_broker.usecases.quarantine import quarantine, release
from stepgrant_broker.usecases.set_secret import set_secret
from stepgrant_broker.usecases.sweep import sweep


async def test_quarantining_a_run_fences_it_until_it_is_released(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run)
    assert await quarantine(broker.ports, broker.operator, "run", run) == {"kind": "run", "name": run, "runs": [run]}
    await quarantine(broker.ports, broker.operator, "run", run)
    with pytest.raises(Quarantined):
        await broker.begin(run)
    with pytest.raises(Quarantined):
        await broker.open(who="k2")
    await release(broker.ports, broker.operator, "run", run)
    assert (await broker.open(who="k2"))["epoch"] == 2
    with pytest.raises(UnknownRun):
        await quarantine(broker.ports, broker.operator, "run", "run_nope")


@pytest.mark.parametrize("kind", ["agent", "workload"])
async def test_quarantining_a_name_takes_back_its_runs(broker: Hand, kind: str) -> None:
    run = (await broker.open())["run"]
    name = "agent" if kind == "agent" else broker.workload.id
    answer = await quarantine(broker.ports, broker.operator, kind, name)
    assert answer["runs"] == [run]
    assert (await broker.entries(run))[-1] == "run_quarantined"
    with pytest.raises(Quarantined):
        await broker.open("another", who="k2")
    await release(broker.ports, broker.operator, kind, name)
    assert (await broker.open("another", who="k2"))["epoch"] == 1


@pytest.mark.parametrize(
    ("kind", "typed", "near"),
    [("agent", "agnet", "near: agent"), ("workload", "agnt", "near: agent"), ("issuer", "jvt", "near: jwt"),
     ("agent", "nobody-like-this", "is known here; to block")],
)  # fmt: skip
async def test_a_switch_that_would_hit_nothing_is_refused_and_nothing_is_written(
    broker: Hand, kind: str, typed: str, near: str
) -> None:
    before = await broker.entries(None)
    with pytest.raises(NotFound, match="nothing was stopped") as refused:
        await quarantine(broker.ports, broker.operator, kind, typed)
    assert (near in refused.value.detail, refused.value.field) == (True, kind)
    assert await broker.ports.reads.quarantines("acme") == ()
    assert await broker.entries(None) == before


@pytest.mark.parametrize("kind", ["agent", "workload", "issuer"])
async def test_a_name_can_be_blocked_before_anything_has_it(broker: Hand, kind: str) -> None:
    answer = await quarantine(broker.ports, broker.operator, kind, "later", beforehand=True)
    assert answer == {"kind": kind, "name": "later", "runs": []}
    # It is thrown now, so throwing it again is no mistake.
    assert await quarantine(broker.ports, broker.operator, kind, "later") == answer


async def test_what_only_the_record_knows_can_be_stopped(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await end(broker.ports, broker.agent(), run, 1, "completed", Result(None), broker.request())
    await unenroll(broker.ports, "acme", broker.operator, broker.workload.id)
    for kind, name in (("agent", "agent"), ("workload", broker.workload.name), ("workload", broker.workload.id)):
        assert (await quarantine(broker.ports, broker.operator, kind, name))["runs"] == []


async def test_an_agent_and_an_issuer_that_only_runs_name_can_be_stopped(broker: Hand) -> None:
    """The trust file has other agents by now; the issuer was taken out of the configuration."""
    once = replace(broker.workload, agents=("bygone",))
    run = (await broker.open("old", workload=once, agent="bygone"))["run"]
    held = (await broker.open("new", who="k2"))["run"]
    await broker.begin(held, who="k2")
    assert (await quarantine(broker.ports, broker.operator, "agent", "bygone"))["runs"] == [run]
    bare = replace(broker.ports, issuers={})
    assert (await quarantine(bare, broker.operator, "issuer", "jwt"))["runs"] == [held]


async def test_the_kill_switch_is_for_operators_and_named_things(broker: Hand) -> None:
    with pytest.raises(Forbidden):
        await quarantine(broker.ports, broker.approver(), "agent", "agent")
    with pytest.raises(InvalidRequest):
        await quarantine(broker.ports, broker.operator, "planet", "mars")
    with pytest.raises(InvalidRequest):
        await release(broker.ports, broker.operator, "planet", "mars")
    with pytest.raises(NotFound):
        await release(broker.ports, broker.operator, "agent", "agent")


async def test_an_ended_run_is_left_alone_by_the_kill_switch(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await end(broker.ports, broker.agent(), run, 1, "completed", Result(None), broker.request())
    before = await broker.entries(run)
    await quarantine(broker.ports, broker.operator, "run", run)
    assert await broker.entries(run) == before


async def test_a_quarantined_issuer_leaves_grants_of_others_alone(broker: Hand) -> None:
    await set_secret(broker.ports, "acme", broker.operator, name="key", value="s3cret", hosts=("api.example",))
    run = (await broker.open())["run"]
    await broker.begin(run, "a")
    static = allow(issuer="static", params={"secret": "key"})
    assert (await broker.begin(run, "b", static))["credential"]["fields"]["value"] == "s3cret"
    await quarantine(broker.ports, broker.operator, "issuer", "static")
    loaded = await broker.store.load(Query("acme", run=run, unfinished=True))
    status = {grant.step: grant.status.value for grant in loaded.view.grants.values()}
    assert status == {"a": "issued", "b": "revoked"}
    assert {step.key: step.state.value for step in loaded.view.steps.values()} == {"a": "started", "b": "in_doubt"}


async def test_the_sweeper_parks_what_lapsed_and_nothing_else(broker: Hand) -> None:
    lapsed = (await broker.open("one"))["run"]
    await broker.begin(lapsed)
    broker.clock.tick(20_000)
    kept = (await broker.open("two", who="k2"))["run"]
    broker.clock.tick(15_000)
    assert (await sweep(broker.ports)).parked == 1
    assert (await sweep(broker.ports)).parked == 0
    assert (await broker.entries(lapsed))[-2:] == ["grant_revoked", "run_parked"]
    assert await broker.entries(kept) == ["run_opened"]
