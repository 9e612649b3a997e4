"""Runs that nobody has to look at again are noted beside the calls: so looks cost less, and find the same."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock, a_step, an_approval, an_epoch
from conformance.store.test_standings import QUESTIONS, every_run, stored
from stepgrant_broker.domain import standing
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import ApprovalStatus, RunState, StepState
from stepgrant_broker.store import resting
from stepgrant_broker.store.asking import Plan
from stepgrant_broker.store.tables import METADATA

WAITING: dict[str, Any] = {"state": RunState.PARKED, "park_reason": "awaiting_approval", "parked_at": NOW - 9}


async def resumable(store: AnyStore, **filters: str) -> list[str]:
    """As a worker asks, page by page."""
    found: list[str] = []
    after: str | None = None
    while True:
        page = await store.standings("acme", Page(7, after), agent="agent", resumable=True, **filters)
        found, after = [*found, *(known.run.id for known in page.rows)], page.next
        if after is None:
            return found


async def noted(store: AnyStore) -> int:
    """How many notes there are to be written, in as many rounds as it takes."""
    total, idle = 0, 0  # of several pages some may have nothing
    while idle < 30:
        some = await store.let_rest()
        total, idle = total + some, 0 if some else idle + 1
    return total


def at_rest(database: Database) -> set[str]:
    """Runs of which that is noted."""
    columns = METADATA.tables["runs"].columns.keys()
    rows = [dict(zip(columns, row, strict=True)) for row in database.snapshot()["runs"]]
    return {row["id"] for row in rows if row["rests_seq"] == row["seq"]}


async def test_workers_find_what_the_rule_says_before_and_after_the_notes_and_when_time_passes(
    store: AnyStore, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "LOOKED_AT", 20)
    monkeypatch.setattr(resting, "PORTION", 7)
    for (run, lease), questions, doubt in itertools.product(every_run(), QUESTIONS, (False, True)):
        await stored(store, run, lease, questions, doubt=doubt)

    async def agreed() -> int:
        everything = (await store.standings("acme", Page(1000))).rows
        expected = [known.run.id for known in reversed(everything) if standing.is_resumable(known)]
        assert await resumable(store) == expected
        assert [known.run.id for known in (await store.standings("acme", Page(1000), resumable=True)).rows] == expected
        assert await resumable(store, state="open") == [
            known.run.id for known in reversed(everything)
            if standing.is_resumable(known) and known.run.state is RunState.OPEN
        ]  # fmt: skip
        return len(expected)

    before = await agreed()
    assert await noted(store) > 0
    parked = [one for one in (await store.standings("acme", Page(1000))).rows if one.run.state is RunState.PARKED]
    assert at_rest(database) == {known.run.id for known in parked if not standing.is_resumable(known)}
    assert await agreed() == before
    clock.time = NOW + 86_400_000  # every question is over
    assert await agreed() > before
    assert await noted(store) == 0


async def test_what_happens_to_a_run_wakes_it(store: AnyStore, clock: SetClock) -> None:
    chain = Chain.of_run(**WAITING)
    asked = an_approval(chain.the_run, "s")
    await store.commit(chain.adds(1, rows=(asked,)))
    assert await noted(store) == 2  # its epoch, too
    assert await resumable(store) == []
    answered = an_approval(chain.the_run, "s", id=asked.id, status=ApprovalStatus.APPROVED, settled_at=NOW)
    await store.commit(chain.adds(1, rows=(answered,)))
    assert await resumable(store) == [chain.run]
    assert await noted(store) == 0

    doubtful = Chain.of_run(state=RunState.PARKED, park_reason="in_doubt", parked_at=NOW)
    step = a_step(doubtful.the_run, state=StepState.IN_DOUBT)
    await store.commit(doubtful.adds(1, rows=(step,)))
    assert await noted(store) == 2
    clock.time = NOW + 10**12
    assert await resumable(store) == [chain.run]
    await store.commit(doubtful.adds(1, rows=(a_step(doubtful.the_run, key=step.key, position=step.position),)))
    assert await resumable(store) == [chain.run, doubtful.run]


async def test_a_note_is_not_written_about_a_run_that_moved_since_it_was_read(
    store: AnyStore, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would rest although somebody has just answered."""
    chain = Chain.of_run(**WAITING)
    await store.commit(chain.adds(1, rows=(an_approval(chain.the_run, "s"),)))
    other = database.open(clock)
    found = resting.Notes((), ((chain.tenant, chain.the_run.id, chain.the_run.seq, standing.FOREVER),), resting.START)
    await store.commit(chain.adds(1))

    def stale(*_: object) -> Plan[resting.Notes]:
        yield []
        return found

    monkeypatch.setattr(resting, "look", stale)
    assert await other.let_rest() == 0
    await other.close()


async def test_an_epoch_is_over_once_its_run_is_not_open_under_it(store: AnyStore, clock: SetClock) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1, lease_until=NOW + 10))
    assert await noted(store) == 0
    await store.commit(chain.adds(1, change={"epoch": 2}, rows=(an_epoch(chain.the_run, 2),), lease_until=NOW + 10))
    assert await noted(store) == 1
    clock.time = NOW + 10
    assert await store.lapsed(clock.time, 9) == (("acme", chain.run),)
    assert await resumable(store) == [chain.run]
    await store.commit(chain.adds(1, change={"state": RunState.PARKED, "park_reason": "suspended", "parked_at": NOW}))
    assert await store.lapsed(clock.time, 9) == ()
    assert await noted(store) == 2  # the second epoch, and a run that only its framework resumes
    await store.commit(
        chain.adds(1, change={"state": RunState.OPEN, "epoch": 3}, rows=(an_epoch(chain.the_run, 3),), lease_until=NOW)
    )
    assert await store.lapsed(clock.time, 9) == (("acme", chain.run),)
    assert await noted(store) == 0
