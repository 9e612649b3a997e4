"""A database that was put back to an earlier state: refused, taken as it is; nothing of the lost part comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes.lost_part import JUMP, before, doubt_and_answers, head, lost, restored_once
from fakes.putback import Place, place_on
from stepgrant import merkle, tlog
from stepgrant.receipt import verify
from stepgrant_broker.config import SettingsError
from stepgrant_broker.domain.errors import (
    Quarantined,
    StaleEpoch,
    StoreUnavailable,
    UnknownGrant,
    UnknownRun,
)
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.domain.restoring import StoreNotBehind, StoreRolledBack
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.quarantine import release
from stepgrant_broker.wiring import opened
from stepgrant_broker.wiring.doctor.findings import State
from stepgrant_broker.wiring.doctor.records import newest
from stepgrant_broker.wiring.failpoints import FailpointHit

STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))]
ON_A_FILE = pytest.mark.parametrize("lived", ["sqlite"], indirect=True)
"""For what does not depend on the store: a copy of a PostgreSQL database takes a second."""


PutBack = tuple[Place, dict[str, Any], dict[str, Any]]


@pytest.fixture(params=STORES, scope="module")
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PutBack:
    """An installation with a past, of which a backup was made, and what came after that; its database is the newest."""

    async def live() -> PutBack:
        place = place_on(request.param, tmp_path_factory.mktemp("lived"), request)
        known = await before(place)
        place.backup()
        return place, known, await lost(place, known)

    return asyncio.run(live())


@pytest.fixture
def place(lived: PutBack, tmp_path: Path) -> Place:
    """A copy of the installation, with the newest database."""
    return lived[0].copied(tmp_path / "place")


@pytest.fixture
def put_back(lived: PutBack, place: Place) -> PutBack:
    """A copy of the installation, with the database as it was when the backup was made."""
    place.put_back()
    return place, *lived[1:]


async def refused(place: Place) -> StoreRolledBack:
    with pytest.raises(StoreRolledBack) as error:
        async with place.broker():
            assert place is None, "a broker started over a store that was rolled back"
    return error.value


async def test_no_broker_starts_over_it(put_back: PutBack) -> None:
    place, known, gone = put_back
    told = await refused(place)
    assert told.code == "store_rolled_back"
    assert told.more == {"size": known["head"].size, "known_size": gone["head"].size}
    assert f"has {known['head'].size} entries, but" in told.detail
    assert f"knows {gone['head'].size}; " in told.detail
    assert "stepgrant db restored" in told.detail
    with pytest.raises(StoreRolledBack):
        async with opened(place.settings):
            pytest.fail("a command that writes went over it")
    async with place.beside() as broker:
        assert (await broker.store.log_tail(1)).head.size == known["head"].size
        assert await broker.store.log_origin("x") == known["head"].origin
        assert [finding.code async for finding in broker.ledger_check().findings()] == ["rolled_back"]
        assert [(found.name, found.state) async for found in newest(broker)] == [("newest", State.FAIL)]


async def test_nothing_of_the_lost_part_comes_back(
    put_back: PutBack,
) -> None:
    place, known, gone = put_back
    behind, done, vkey = await place.restore()
    assert (behind.size, behind.known_size) == (known["head"].size, gone["head"].size)
    assert behind.origin == f"{known['head'].origin}/r1"
    assert (done.tenants, done.runs, done.void) == (1, 2, 1)
    assert vkey.startswith(f"{behind.origin}+")

    async with place.broker() as (broker, hand):
        run, zombie = known["held"], hand.agent("k2")
        for epoch in (1, 2, 3):
            with pytest.raises(Quarantined):
                await heartbeat(hand.ports, zombie, run, epoch, hand.request())
        with pytest.raises(Quarantined):
            await hand.open("held", who="k4")
        await release(hand.ports, hand.operator, "run", run)
        for epoch, who in ((1, "k1"), (2, "k2"), (3, "k2"), (JUMP + 1, "k1")):
            with pytest.raises(StaleEpoch):
                await heartbeat(hand.ports, hand.agent(who), run, epoch, hand.request())
            with pytest.raises(StaleEpoch):
                await hand.begin(run, "s9", epoch=epoch, who=who)
        with pytest.raises(UnknownRun):
            await hand.begin(gone["alone"], "s1")
        with pytest.raises(UnknownGrant):
            await hand.redeem(gone["jti"])

        await doubt_and_answers(hand, known)
        assert [str(finding) async for finding in broker.ledger_check().findings()] == []


@ON_A_FILE
async def test_old_receipts_and_heads_stay_what_they_were(
    put_back: PutBack,
) -> None:
    place, known, gone = put_back
    behind, _, _ = await place.restore()
    for receipt in (known["receipt"], gone["receipt"]):
        logged = verify(receipt, known["keys"]).logged
        assert logged is not None
        assert logged.origin == known["head"].origin
    with pytest.raises(SettingsError, match="LOG_ORIGIN"):
        async with place.beside(log_origin="other.example/log"):
            pytest.fail("it took a name that the log never had")
    async with place.broker(log_origin=known["head"].origin) as (broker, _):
        now = await head(broker)
        assert now.origin == behind.origin
        assert now.size > known["head"].size
        proof = await broker.log.consistency(known["head"].size, now.size)
        merkle.verify_consistency(known["head"].size, now.size, proof, known["head"].root, now.root)
        proof = await broker.log.consistency(gone["head"].size, now.size) if gone["head"].size < now.size else []
        with pytest.raises(merkle.ProofInvalid):
            merkle.verify_consistency(gone["head"].size, now.size, proof, gone["head"].root, now.root)
        again = verify(await broker.receipt(known["over"]), known["keys"])
        earlier = verify(known["receipt"], known["keys"])
        again.continues(earlier)
        assert again.logged is not None
        assert earlier.logged is not None
        assert (again.logged.origin, again.logged.indexes) == (behind.origin, earlier.logged.indexes)


@ON_A_FILE
async def test_a_store_that_is_whole_is_not_restored(lived: PutBack, place: Place) -> None:
    name = lived[1]["head"].origin
    with pytest.raises(StoreNotBehind) as error:
        await place.restore()
    assert error.value.code == "store_not_behind"
    async with place.broker() as (broker, hand):
        assert (await head(broker)).origin == name
        assert "store_restored" not in await hand.entries(None)


@ON_A_FILE
async def test_the_same_copy_twice_gives_two_names(
    put_back: PutBack,
) -> None:
    place, known, _ = put_back
    first, _, _ = await place.restore()
    async with place.broker() as (broker, _):
        assert (await head(broker)).origin == first.origin
    place.put_back()
    told = await refused(place)
    assert f"its log is called {known['head'].origin!r}, but" in told.detail
    second, _, _ = await place.restore()
    assert second.origin == f"{known['head'].origin}/r2"
    async with place.broker() as (broker, hand):
        assert (await head(broker)).origin == second.origin
        assert (await hand.entries(None)).count("store_restored") == 1
        assert [str(finding) async for finding in broker.ledger_check().findings()] == []


@ON_A_FILE
async def test_another_past_of_the_same_length_is_refused(put_back: PutBack) -> None:
    """A fork: the copy went on without us, and has as many entries as the one that we knew, or more."""
    place, known, gone = put_back
    seen, ours = gone["head"], place.settings.newest_folder / "newest-head"
    kept = ours.read_bytes()
    ours.unlink()
    async with place.broker() as (broker, hand):
        for number in range(12):
            await hand.open(f"theirs-{number}")
        assert (await head(broker)).size > seen.size > known["head"].size
    ours.write_bytes(kept)
    told = await refused(place)
    assert f"the first {seen.size} of its" in told.detail
    assert "are not those that" in told.detail
    behind, _, _ = await place.restore()
    assert behind.size > behind.known_size == seen.size
    async with place.broker() as (broker, _):
        assert (await head(broker)).origin == behind.origin


@ON_A_FILE
async def test_without_what_was_kept_outside_nobody_can_tell(
    put_back: PutBack,
) -> None:
    """Said in words in the documents: the file went back together with the database, and no witness is asked."""
    place, known, _ = put_back
    (place.settings.newest_folder / "newest-head").unlink()
    async with place.broker() as (broker, _):
        assert (await broker.store.log_tail(1)).head.size >= known["head"].size


# ------------------------------------------------------------------------------------------------------ broken off


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_broken_off_it_is_begun_again(put_back: PutBack, nth: int) -> None:
    """Its three commits: the tenant's chain, and two runs."""
    place, known, _ = put_back
    with pytest.raises(FailpointHit):
        await place.restore(failpoints=f"usecase.after_commit@{nth}=raise")
    await refused(place)
    behind, _, _ = await place.restore()
    assert behind.origin == f"{known['head'].origin}/r1"
    await restored_once(place, known)


@ON_A_FILE
@pytest.mark.parametrize("after", ["rename", "sign", "publish"])
async def test_broken_off_at_its_end_it_is_begun_again(
    put_back: PutBack, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the log has its new name: no head signed, none kept, or only the file not written."""
    from stepgrant_broker.ledger import newest, seen, sequencer  # noqa: PLC0415 - what is broken here

    async def broken(*_: object) -> Any:  # noqa: ANN401 - it gives nothing
        raise FailpointHit(after)

    def broken_file(*_: object) -> None:
        raise FailpointHit(after)

    place, known, _ = put_back
    with monkeypatch.context() as broke:
        if after == "rename":
            broke.setattr(seen.Seen, "settle", broken)
        elif after == "sign":
            broke.setattr(sequencer.Sequencer, "_sign", broken)
        else:
            broke.setattr(newest.HeadFile, "replace", broken_file)
        with pytest.raises(FailpointHit):
            await place.restore()
    if after == "publish":
        with pytest.raises(StoreNotBehind):
            await place.restore()
    else:
        told = await refused(place)
        assert "no head under that name is signed by this broker's keys" in told.detail
        behind, _, _ = await place.restore()
        assert (behind.origin, behind.previous) == (f"{known['head'].origin}/r1",) * 2
    await restored_once(place, known)


@ON_A_FILE
async def test_who_can_only_write_the_database_cannot_rename_the_log(
    put_back: PutBack,
) -> None:
    """To give it the name of a later restore is not enough to be rid of what is known of the old one."""
    place, known, _ = put_back
    async with place.beside() as broker:
        await broker.store.log_rename(known["head"].origin, f"{known['head'].origin}/r7")
    told = await refused(place)
    assert "no head under that name is signed by this broker's keys" in told.detail


async def test_a_broker_that_ran_all_the_time_keeps_no_head_under_the_old_name(
    put_back: PutBack,
) -> None:
    place, known, _ = put_back
    file = place.settings.newest_folder / "newest-head"
    seen = file.read_bytes()
    file.unlink()
    async with place.broker() as (running, hand):
        file.write_bytes(seen)
        await hand.open("beside")
        behind, _, _ = await place.restore()
        await hand.open("late")
        with pytest.raises(StoreUnavailable, match="another name by now"):
            await running.log.catch_up()
        file.unlink()
        with pytest.raises(VersionMoved, match="another name"):
            await running.log.catch_up()
        newest = await running.store.log_published()
        assert newest is not None
        assert tlog.read_signed_head(newest.note)[0].origin == behind.origin
    async with place.broker() as (broker, _):
        assert (await head(broker)).origin == behind.origin
        assert known["head"].origin != behind.origin
