"""What a database had when it was copied, what happened after that, and what a restore must have made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand, ask
from fakes.putback import Place
from fakes.tale import answer_approval
from stepgrant import tlog
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import WrongHolder
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import ApprovalStatus, RunState, StepState
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.end import end
from stepgrant_broker.wiring import Broker

JUMP = 1_000_000


async def keys(broker: Broker) -> dict[str, Any]:
    return {"keys": [dict(key.jwk) for key in await broker.ports.signer.public_keys("heads")]}


async def head(broker: Broker) -> tlog.Head:
    await broker.log.catch_up()
    note = await broker.log.head()
    assert note is not None
    return tlog.read_signed_head(note)[0]


async def before(place: Place) -> dict[str, Any]:
    """What the backup has: a run that ended, one with a grant out, one that waits for its holder with an approval."""
    async with place.broker() as (broker, hand):
        over = str((await hand.open("over"))["run"])
        await end(hand.ports, hand.agent(), over, 1, "completed", Result(b"1"), hand.request())
        held = str((await hand.open("held"))["run"])
        granted = await hand.begin(held, "s1")
        await hand.begin(held, "s2", effect=Effect.READ)
        waits = str((await hand.open("waits"))["run"])
        asked = await hand.begin(waits, "s1", ask(groups=["finance"]))
        await answer_approval(hand, waits, str(asked["approval_id"]))
        there = await head(broker)
        receipt = await broker.receipt(over)
        assert place.settings.newest_folder.joinpath("newest-head").exists()
        return {"over": over, "held": held, "waits": waits, "jti": granted["grant"]["jti"], "head": there,
                "receipt": receipt, "keys": await keys(broker)}  # fmt: skip


async def lost(place: Place, known: dict[str, Any]) -> dict[str, Any]:
    """What happens after the backup: the grant is used, the run is resumed, the approval spent, another run opened."""
    async with place.broker() as (broker, hand):
        await hand.redeem(known["jti"])
        await hand.complete(known["held"], "s1")
        place.clock.tick(hand.ports.limits.lease_ms + 1)
        assert (await hand.open("held", who="k2"))["epoch"] == 2
        spent = await hand.open("waits", who="k3")
        granted = await hand.begin(known["waits"], "s1", ask(groups=["finance"]), epoch=spent["epoch"], who="k3")
        assert granted["outcome"] == "run"
        alone = str((await hand.open("alone"))["run"])
        return {"alone": alone, "jti": granted["grant"]["jti"], "head": await head(broker),
                "receipt": await broker.receipt(known["held"])}  # fmt: skip


async def restored_once(place: Place, known: dict[str, Any]) -> None:
    """Whatever went before: each chain says it once, each epoch jumped once, and a broker may start."""
    async with place.beside() as broker:
        hand = replace(_hand(place), ports=broker.ports)
        assert (await hand.entries(None)).count("store_restored") == 1
        for run in (known["held"], known["waits"]):
            types = await hand.entries(run)
            assert types.count("run_restored") == types.count("run_quarantined") == 1
            view = (await hand.ports.store.load(Query("acme", run=run))).view
            assert view.run is not None
            assert view.run.epoch == JUMP + 1
        assert (await head(broker)).origin == f"{known['head'].origin}/r1"
        assert await broker.seen.contradictions(ask_witnesses=True) == []
        assert [str(finding) async for finding in broker.ledger_check().findings()] == []


def _hand(place: Place) -> Hand:
    assert place.hand is not None
    return place.hand


async def doubt_and_answers(hand: Hand, known: dict[str, Any]) -> None:
    """The step that was done in the lost part is not done again, and the answer that was spent there is void."""
    back = await hand.open("held", who="k5")
    assert (back["epoch"], [one["step"] for one in back["in_doubt"]]) == (JUMP + 2, ["s1"])
    doubtful = await hand.begin(known["held"], "s1", epoch=back["epoch"], who="k5")
    assert (doubtful["outcome"], doubtful["why"]) == ("in_doubt", "restored")
    with pytest.raises(WrongHolder):
        await hand.begin(known["held"], "s8", epoch=back["epoch"], who="k1")
    view = (await hand.ports.store.load(Query("acme", run=known["waits"], unfinished=True))).view
    assert view.run is not None
    assert (view.run.state, view.run.epoch, view.steps["s1"].state) == (
        RunState.QUARANTINED, JUMP + 1, StepState.IN_DOUBT,
    )  # fmt: skip
    listed = await hand.ports.reads.approvals("acme", Page(), run=known["waits"])
    assert [one.status for one in listed.rows] == [ApprovalStatus.VOID]
