"""After a restore every chain says so once, however often it is begun, and no run goes on by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fakes.hand import Hand, allow, ask
from fakes.tale import answer_approval
from stepgrant import canonical
from stepgrant_broker.domain.errors import Quarantined
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import GrantStatus, Run, RunState
from stepgrant_broker.usecases import restored
from stepgrant_broker.usecases.end import cancel_by_person, end
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.restored import Restore, Restored, restore

NAME = "broker.example/log"
AFTER = f"{NAME}/r1"
WHAT = Restore(40, 52, NAME, AFTER, "the disk failed; backup of midnight")
JUMP = 1_000_000


async def restoring(broker: Hand, what: Restore = WHAT) -> tuple[Restored, list[int]]:
    """Restore; what came of it, and how many runs were done each time that somebody was told."""
    told: list[int] = []
    assert await broker.store.log_origin(what.previous) in {what.previous, what.origin}
    done = await restore(broker.ports, broker.store, what, ["acme"], lambda so_far: told.append(so_far.runs))
    return done, told


async def known(broker: Hand) -> dict[str, Run]:
    return {run.key: run for run, _ in (await broker.ports.reads.runs("acme", Page())).rows}


async def said(broker: Hand, run: str | None, kind: str) -> list[dict[str, Any]]:
    """The entries of this type."""
    found = await broker.ports.reads.entries("acme", run, limit=500)
    entries = [json.loads(entry.data) for entry in found]
    return [entry for entry in entries if entry["type"] == kind]


async def parked(broker: Hand, key: str, who: str) -> str:
    run = str((await broker.open(key, who=who))["run"])
    await park(broker.ports, broker.agent(who), run, 1, "requested", broker.request())
    return run


async def a_past(broker: Hand) -> dict[str, str]:
    """A run in each state: a credential out in one, a doubt and an answer in another."""
    held = str((await broker.open("held", who="k1"))["run"])
    await broker.begin(held, "s1", allow(), who="k1")
    asks = str((await broker.open("asks", who="k2"))["run"])
    await broker.begin(asks, "s1", who="k2")
    question = await broker.begin(asks, "s2", ask(groups=["finance"]), who="k2", resource="order/2")
    await answer_approval(broker, asks, str(question["approval_id"]))
    await park(broker.ports, broker.agent("k2"), asks, 1, "requested", broker.request())
    stopped = str((await broker.open("stopped", who="k3"))["run"])
    await quarantine(broker.ports, broker.operator, "run", stopped)
    over = str((await broker.open("over", who="k4"))["run"])
    await end(broker.ports, broker.agent("k4"), over, 1, "completed", Result(None), broker.request())
    return {"held": held, "asks": asks, "stopped": stopped, "over": over}


async def test_every_chain_says_so_and_no_run_goes_on_by_itself(broker: Hand) -> None:
    ids = await a_past(broker)
    before, guard = await known(broker), (await broker.store.tenants())[0].guard
    over = await broker.entries(ids["over"])

    done, told = await restoring(broker)

    assert done == Restored(tenants=1, runs=3, doubts=3, void=1)
    assert told == [1, 2, 3], "after each batch: those quarantined, open and parked"
    after = await known(broker)
    for key in ("held", "asks", "stopped"):
        assert (after[key].state, after[key].epoch) == (RunState.QUARANTINED, before[key].epoch + JUMP)
        assert after[key].park_reason == "restored"
        (entry,) = await said(broker, ids[key], "run_restored")
        assert entry["body"] == {"from_epoch": 1, "origin": AFTER}
        assert entry["by"]["kind"] == "person"
    assert (after["over"], await broker.entries(ids["over"])) == (before["over"], over), "an ended run stays as it is"
    (announced,) = await said(broker, None, "store_restored")
    note_c = announced["body"].pop("note_c")
    assert announced["body"] == {"size": 40, "known_size": 52, "origin": AFTER, "previous_origin": NAME}
    (note,) = (await broker.ports.reads.payloads("acme", "", [note_c])).values()
    assert canonical.loads(note.body) == WHAT.note
    assert (await broker.store.tenants())[0].guard == guard + 1, "no grant in flight outruns it"
    assert await broker.store.log_origin(NAME) == AFTER


async def test_what_was_out_is_revoked_and_its_holder_gets_nothing(broker: Hand) -> None:
    ids = await a_past(broker)
    await restoring(broker)
    (grant,) = (await broker.ports.reads.grants("acme", Page(), run=ids["held"])).rows
    assert (grant.status, grant.cause) == (GrantStatus.REVOKED, "restored")
    entries = await broker.entries(ids["held"])
    with pytest.raises(Quarantined):
        await broker.begin(ids["held"], "s2", who="k1")
    with pytest.raises(Quarantined):
        await broker.open("held", who="k9")
    assert await broker.entries(ids["held"]) == entries


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_broken_off_anywhere_it_is_begun_again_and_nothing_is_said_twice(
    broker: Hand, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commits: the tenant's chain, and two runs. The log has its old name until all of it is done."""
    # One at a time: whoever is broken off leaves nobody behind who goes on.
    monkeypatch.setattr(restored, "AT_ONCE", 1)
    runs = [await parked(broker, key, who) for key, who in (("one", "k1"), ("two", "k2"))]
    broker.failpoints.seen.clear()

    def break_off() -> None:
        if broker.failpoints.seen.count("usecase.after_commit") == nth:
            raise ConnectionResetError

    broker.failpoints.armed = {"usecase.after_commit": break_off}
    with pytest.raises(ConnectionResetError):
        await restoring(broker)
    broker.failpoints.armed = {}
    assert await broker.store.log_origin(NAME) == NAME

    done, _ = await restoring(broker)
    assert (done.tenants, done.runs) == (1, 2), "those of the first try are counted, too"
    assert await broker.store.log_origin(NAME) == AFTER
    assert len(await said(broker, None, "store_restored")) == 1
    for run in runs:
        assert (await broker.entries(run))[-2:] == ["run_restored", "run_quarantined"]
        assert len(await said(broker, run, "run_restored")) == 1
    assert {run.epoch for run in (await known(broker)).values()} == {1 + JUMP}


async def test_two_restores_at_once_jump_each_run_once(broker: Hand) -> None:
    ids = await a_past(broker)
    epochs = {run.id: run.epoch for run in (await known(broker)).values()}

    await asyncio.gather(restoring(broker), restoring(broker))

    after = {run.id: run.epoch for run in (await known(broker)).values()}
    for run in (ids["held"], ids["asks"], ids["stopped"]):
        assert len(await said(broker, run, "run_restored")) == 1
        assert after[run] - epochs[run] == JUMP


async def test_another_restore_says_so_again(broker: Hand) -> None:
    run = await parked(broker, "one", "k1")
    await restoring(broker)
    again = Restore(60, 70, AFTER, f"{NAME}/r2", "the disk failed again")
    assert (await restoring(broker, again))[0].runs == 1
    assert [entry["body"]["origin"] for entry in await said(broker, run, "run_restored")] == [AFTER, again.origin]
    assert [entry["body"]["origin"] for entry in await said(broker, None, "store_restored")] == [AFTER, again.origin]
    assert (await known(broker))["one"].epoch == 1 + 2 * JUMP


async def test_no_run_is_left_out_behind_a_page_and_somebody_is_told_after_each(
    broker: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restored, "AT_ONCE", 2)
    runs = [await parked(broker, f"job-{number}", f"k{number}") for number in range(5)]
    done, told = await restoring(broker)
    assert (done.runs, told) == (5, [2, 4, 5])
    assert [len(await said(broker, run, "run_restored")) for run in runs] == [1] * 5


async def test_a_run_that_ended_after_it_was_listed_stays_ended(broker: Hand) -> None:
    run = await parked(broker, "one", "k1")
    listed = (await known(broker))["one"]
    await cancel_by_person(broker.ports, broker.operator, run, broker.request())
    before = await broker.entries(run)
    view = await restored._restore_run(broker.ports, listed, AFTER)
    assert (view.run, await broker.entries(run)) == (None, before)
    assert (await known(broker))["one"].state is RunState.CANCELLED
