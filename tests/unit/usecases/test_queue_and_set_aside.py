"""Queueing a run, counting tries, setting a poison run aside and releasing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from fakes.hand import Hand
from fakes.world import call
from stepgrant_broker.domain import standing
from stepgrant_broker.domain.caller import Request
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    PolicyDenied,
    Quarantined,
    RunEnded,
    SetAside,
    UnknownRun,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.store import schema
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.end import cancel_by_person
from stepgrant_broker.usecases.open import OpenCall
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.quarantine import quarantine, release
from stepgrant_broker.usecases.queue import queue_run
from stepgrant_broker.usecases.record import RecordCall, record


async def queue(
    broker: Hand,
    key: str = "job",
    who: str = "starter",
    request: Request | None = None,
    **more: bytes | str | dict[str, str] | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "version": None,
        "input_bytes": b'{"a":1}',
        "labels": {},
        "principal": None,
        "agent": "agent",
        **more,
    }
    order = OpenCall(run_key=key, takeover=False, **values)
    return await queue_run(broker.ports, broker.agent(who), order, request or broker.request())


async def known(broker: Hand, run: str) -> standing.Standing:
    return (await broker.ports.reads.standings("acme", Page(1), run=run)).rows[0]


async def parks(broker: Hand, run: str, epoch: int, reason: str = "error", who: str = "k1", **more: str | None) -> None:
    await park(broker.ports, broker.agent(who), run, epoch, reason, broker.request(), **more)


async def test_a_queued_run_is_stored_parked_and_resumable_at_once(broker: Hand) -> None:
    answer = await queue(broker)
    assert (answer["state"], answer["queued"]) == ("parked", True)
    assert await broker.entries(answer["run"]) == ["run_opened", "run_parked"]
    stands = await known(broker, answer["run"])
    assert (stands.run.park_reason, stands.run.tries, standing.is_resumable(stands)) == ("queued", 0, True)

    opened = await broker.open(who="k1")

    assert (opened["epoch"], opened["resumed"], opened["input"]) == (2, True, {"a": 1})
    assert (await known(broker, answer["run"])).run.tries == 1


async def test_queueing_again_leaves_the_run_as_it_is(broker: Hand) -> None:
    run = (await queue(broker))["run"]
    assert (await queue(broker, who="k9", input_bytes=None))["queued"] is False
    await broker.open(who="k1")
    held = await known(broker, run)

    again = await queue(broker, who="k8")

    assert (again["run"], again["state"], again["queued"]) == (run, "open", False)
    assert await known(broker, run) == held


async def test_a_lost_reply_gives_the_first_answer_again(broker: Hand) -> None:
    """Whatever became of the run since; under another key it is another question."""
    request = broker.request()
    first = await queue(broker, request=request)
    await broker.open(who="k1")
    before = await broker.entries(first["run"])
    assert await queue(broker, request=request) == first
    assert (first["state"], first["queued"]) == ("parked", True)
    with pytest.raises(DuplicateRequest):
        await queue(broker, request=Request(request.idempotency_key, b"another"))
    assert (await queue(broker))["state"] == "open"
    assert await broker.entries(first["run"]) == before


async def test_another_input_under_a_queued_key_is_refused(broker: Hand) -> None:
    run = (await queue(broker))["run"]
    with pytest.raises(DuplicateRequest):
        await queue(broker, who="k9", input_bytes=b"2")
    assert await broker.entries(run) == ["run_opened", "run_parked"]


async def test_an_ended_key_a_denied_and_a_foreign_agent_queue_nothing(broker: Hand) -> None:
    run = (await queue(broker))["run"]
    await cancel_by_person(broker.ports, broker.operator, run, broker.request())
    with pytest.raises(RunEnded):
        await queue(broker, who="k9")
    with pytest.raises(PolicyDenied):
        await queue(broker, "other", who="k9", labels={"stepgrant.run.open": "deny"})
    with pytest.raises(Forbidden):
        await queue(broker, "other", who="k9", agent="foreign")
    await quarantine(broker.ports, broker.operator, "agent", "agent")
    with pytest.raises(Quarantined):
        await queue(broker, "other", who="k9")
    assert len((await broker.ports.reads.runs("acme", Page())).rows) == 1


async def test_resume_opens_no_new_run(broker: Hand) -> None:
    with pytest.raises(UnknownRun):
        await broker.open("nobody", resume=True)
    assert (await broker.ports.reads.runs("acme", Page())).rows == ()
    await queue(broker)
    assert (await broker.open(who="k1", resume=True))["epoch"] == 2


async def test_tries_count_openings_since_a_result(broker: Hand) -> None:
    run = (await broker.open())["run"]
    counted = [(await known(broker, run)).run.tries]
    for epoch in (1, 2):
        await parks(broker, run, epoch, who=f"k{epoch}")
        await broker.open(who=f"k{epoch + 1}")
        counted.append((await known(broker, run)).run.tries)
    granted = await broker.begin(run, who="k3", epoch=3)
    counted.append((await known(broker, run)).run.tries)
    await broker.redeem(granted["grant"]["jti"])
    await broker.complete(run, epoch=3, who="k3")
    counted.append((await known(broker, run)).run.tries)
    assert counted == [1, 2, 3, 3, 0]


async def test_a_recorded_step_is_a_result_a_failure_and_a_hooks_look_are_none(broker: Hand) -> None:
    run = (await broker.open())["run"]
    look = call(
        "s1~reconcile~1",
        effect=Effect.READ,
        tool="pay.reconcile",
        context={
            "decide": {
                "effect": "allow",
                "reasons": ["ok"],
                "grant": {"effect": "read", "audience": "https://tool.example"},
            }
        },
    )
    await begin(broker.ports, broker.agent(), run, look, broker.request())
    await complete(broker.ports, broker.agent(), run, look.step, 1, 1, Result(b"1"), broker.request())
    assert (await known(broker, run)).run.tries == 1
    plan = RecordCall("plan", 1, "plan", b"{}", IdSource.EXPLICIT, Result(b"1"))
    await record(broker.ports, broker.agent(), run, plan, broker.request())
    assert (await known(broker, run)).run.tries == 0


async def test_set_aside_is_refused_until_an_operator_releases_it(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await parks(broker, run, 1, "set_aside", detail="ValueError: no")
    stands = await known(broker, run)
    assert not standing.is_resumable(stands)
    for takeover in (False, True):
        with pytest.raises(SetAside, match="operator"):
            await broker.open(who="k2", takeover=takeover)
    assert await broker.entries(run) == ["run_opened", "run_parked"]
    detail = (await broker.ports.reads.payloads("acme", run, [str(stands.run.park_detail_c)])).values()
    assert [(one.field, one.body) for one in detail] == [("park.detail", b'"ValueError: no"')]

    with pytest.raises(Forbidden):
        await release(broker.ports, broker.approver(), "run", run)
    await release(broker.ports, broker.operator, "run", run)

    after = (await known(broker, run)).run
    assert (after.park_reason, after.park_detail_c, after.tries) == ("released", None, 0)
    assert (await broker.open(who="k2"))["epoch"] == 2


async def test_only_what_is_stopped_is_released(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await parks(broker, run, 1)
    with pytest.raises(InvalidRequest, match="neither"):
        await release(broker.ports, broker.operator, "run", run)
    assert await broker.entries(run) == ["run_opened", "run_parked"]


@pytest.mark.parametrize(
    ("reason", "detail"), [("queued", None), ("released", None), ("error", ""), ("error", "x" * 501)]
)
async def test_what_a_holder_may_not_say_of_its_park(broker: Hand, reason: str, detail: str | None) -> None:
    run = (await broker.open())["run"]
    with pytest.raises(InvalidRequest):
        await parks(broker, run, 1, reason, detail=detail)
    assert await broker.entries(run) == ["run_opened"]


async def test_a_migrated_database_counts_what_its_entries_say(broker: Hand, tmp_path: Path) -> None:
    """The statement of the migration, over runs of every kind, gives what folding gave."""
    for number in range(3):
        run = (await broker.open(f"r{number}", who=f"a{number}"))["run"]
        if number:
            granted = await broker.begin(run, who=f"a{number}")
            await broker.redeem(granted["grant"]["jti"])
            await broker.complete(run, who=f"a{number}")
        await parks(broker, run, 1, "set_aside" if number == 2 else "error", who=f"a{number}")
        if number == 2:
            await release(broker.ports, broker.operator, "run", run)
        await broker.open(f"r{number}", who=f"b{number}")
    folded = {row.id: row.tries for row, _ in (await broker.ports.reads.runs("acme", Page())).rows}
    assert sorted(folded.values()) == [1, 1, 2]
    revision = ScriptDirectory.from_config(schema._config()).get_revision("0005")
    assert revision is not None

    with closing(sqlite3.connect(tmp_path / "store" / "stepgrant.db")) as db, db:
        db.execute("UPDATE runs SET tries = -1")
        db.execute(str(revision.module.OPENINGS))

    assert {row.id: row.tries for row, _ in (await broker.ports.reads.runs("acme", Page())).rows} == folded
