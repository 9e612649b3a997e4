"""Where a store can be broken: the same places on every adapter, and none of them leaves half a set behind."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from conformance.store.adapters import Database
from conformance.store.making import Chain, Gate, Raising, SetClock, Several, a_grant, a_proof, a_step, an_approval
from stepgrant_broker.domain.errors import FateUnknown, StoreUnavailable
from stepgrant_broker.domain.writes import WriteSet
from stepgrant_broker.store.faults import WriteSetMalformed

INSIDE: Final = (
    "store.before_apply", "store.after_proof", "store.after_step", "store.after_grant", "store.after_row",
    "store.after_entries", "store.before_commit",
)  # fmt: skip
"""Before anything is durable; the order of proof and chain is an adapter's own, that of the others is not."""


class Noting:
    """Failpoints that note where they were hit."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def hit(self, point: str) -> None:
        self.seen.append(point)


def whole_set(chain: Chain) -> WriteSet:
    """A set with something in every group."""
    step = a_step(chain.the_run)
    rows = (step, a_grant(chain.the_run, step.key), an_approval(chain.the_run, step.key))
    return chain.adds(2, rows=rows, proof=a_proof(), opens=False)


async def test_the_points_in_their_order(database: Database, clock: SetClock) -> None:
    noting = Noting()
    store = database.open(clock, noting)
    await store.commit(whole_set(Chain.of_run()))
    await store.close()
    assert [point for point in noting.seen if point != "store.checkpoint"] == [
        *INSIDE, "store.after_commit", "store.after_reply",
    ]  # fmt: skip


@pytest.mark.parametrize("point", INSIDE)
async def test_broken_before_its_commit_nothing_is_there(database: Database, clock: SetClock, point: str) -> None:
    store = database.open(clock, Raising(point, RuntimeError("broken")))
    chain = Chain.of_run()
    writes = whole_set(chain)
    before = database.snapshot()
    with pytest.raises((StoreUnavailable, WriteSetMalformed)) as caught:
        await store.commit(writes)
    assert not isinstance(caught.value, FateUnknown)
    assert database.snapshot() == before
    await store.commit(writes)
    assert len(database.snapshot()["entries"]) == len(before["entries"]) + 2
    await store.close()


async def test_broken_after_its_commit_nobody_says_that_it_is_not_there(database: Database, clock: SetClock) -> None:
    store = database.open(clock, Raising("store.after_commit", RuntimeError("broken")))
    with pytest.raises(FateUnknown):
        await store.commit(whole_set(Chain.of_run()))
    assert len(database.snapshot()["entries"]) == 2
    await store.close()


async def test_a_batch_that_breaks_half_answered_answers_the_other_half_too(
    database: Database, clock: SetClock
) -> None:
    gate, noting = Gate(), Noting()
    store = database.open(clock, Several(gate, noting, Raising("store.mid_batch", RuntimeError("broken"))))
    first = asyncio.create_task(store.commit(Chain.of_run().adds(1)))
    await asyncio.to_thread(gate.reached.wait, 60)
    others = [asyncio.create_task(store.commit(Chain.of_run().adds(1))) for _ in range(5)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *others)
    await store.close()
    assert noting.seen.count("store.mid_batch") == 1
    assert len(database.snapshot()["entries"]) == 6
