"""Lost call ids through the use cases over real stores: what is loaded, who may answer, and what is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand, allow
from fakes.lost_tale import LOST_TYPES, again, crashed, left_completed, lost_life, opened, used
from fakes.world import call
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    DuplicateSuspected,
    StaleEpoch,
    StepDrift,
    StepInDoubt,
    UnknownStep,
)
from stepgrant_broker.domain.ports import Store
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.domain.writes import Loaded, Query, WriteSet
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.start import start


class Counting:
    """A store, and the queries that it was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queries: list[Query] = []

    def recall(self, _query: Query) -> Loaded | None:
        return None

    async def load(self, query: Query) -> Loaded:
        self.queries.append(query)
        return await self._store.load(query)

    async def commit(self, writes: WriteSet) -> None:
        await self._store.commit(writes)


def counted(broker: Hand) -> Counting:
    store = Counting(broker.ports.store)
    broker.ports = replace(broker.ports, store=store)  # type: ignore[arg-type]
    return store


async def test_the_tables_are_what_the_entries_fold_to(broker: Hand) -> None:
    run = await lost_life(broker)
    assert set(await broker.entries(run)) == LOST_TYPES
    check = LedgerCheck(broker.store, broker.store, wrap=broker.ports.wrap, digest_of=digest_of)
    assert [finding async for finding in check.findings()] == []


async def test_a_first_epoch_is_asked_no_more_than_before(broker: Hand) -> None:
    run = await opened(broker)
    store = counted(broker)
    for effect in Effect:
        await broker.begin(run, f"call_{effect.value}", effect=effect, id_source=IdSource.CALL_ID)
    await broker.begin(run, "explicit")
    assert [query.sought for query in store.queries] == [None] * 4


async def test_only_what_may_be_lost_or_blocked_is_looked_for(broker: Hand) -> None:
    run = await opened(broker)
    await broker.begin(run, "known", effect=Effect.READ, id_source=IdSource.CALL_ID)
    await crashed(broker)
    store = counted(broker)
    await broker.begin(run, "explicit", epoch=2, who="k2")
    await broker.begin(run, "known", epoch=2, who="k2", effect=Effect.READ, id_source=IdSource.CALL_ID)
    assert [query.sought for query in store.queries] == [None] * 2
    await broker.begin(run, "new", epoch=2, who="k2", effect=Effect.READ, id_source=IdSource.CALL_ID)
    sought = store.queries[-1].sought
    assert sought is not None
    assert (sought.tool, sought.lost, sought.doubt) == ("pay", True, False)


async def test_a_credential_is_for_the_step_that_the_call_is(broker: Hand) -> None:
    run = await opened(broker)
    first = await used(broker, run, "old", 1, effect=Effect.IDEMPOTENT)
    await crashed(broker)
    more: dict[str, Any] = {"epoch": 2, "who": "k2", "effect": Effect.IDEMPOTENT, "id_source": IdSource.CALL_ID}
    answer = await broker.begin(run, "new", resource="order/1", **more)
    assert (answer["outcome"], answer["step"], answer["grant"]["step"]) == ("run", "old", "old")
    assert answer["grant"]["idempotency_key"] == first["grant"]["idempotency_key"]
    with pytest.raises(StepDrift, match="goes on as step old"):
        await broker.complete(run, "new", epoch=2, attempt=2, who="k2")
    assert (await broker.complete(run, "old", epoch=2, attempt=2, who="k2"))["state"] == "completed"
    answer = await broker.begin(run, "new", resource="order/1", **more)
    assert (answer["outcome"], answer["step"], answer["result"]) == ("replay", "old", "ok")


async def test_prepare_takes_it_up_and_start_goes_on_with_it(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1, effect=Effect.IDEMPOTENT)
    await crashed(broker)
    what = call(
        "new",
        epoch=2,
        effect=Effect.IDEMPOTENT,
        id_source=IdSource.CALL_ID,
        context={"decide": allow(effect="idempotent")},
    )
    with pytest.raises(UnknownStep):
        await start(broker.ports, broker.agent("k2"), run, what, broker.request())
    advice = await prepare(broker.ports, broker.agent("k2"), run, what, broker.request())
    assert (advice["outcome"], advice["step"]) == ("run", "old")
    started = await start(broker.ports, broker.agent("k2"), run, what, broker.request())
    assert (started["step"], started["attempt"]) == ("old", 2)


async def test_a_lost_reply_under_another_name_is_the_same_request(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1, effect=Effect.IDEMPOTENT)
    await crashed(broker)
    request = broker.request()
    more: dict[str, Any] = {
        "epoch": 2,
        "who": "k2",
        "effect": Effect.IDEMPOTENT,
        "id_source": IdSource.CALL_ID,
        "request": request,
    }
    first = await broker.begin(run, "new", resource="order/1", **more)
    second = await broker.begin(run, "new", resource="order/1", not_received=True, **more)
    assert (second["attempt"], second["step"]) == (first["attempt"], "old")
    assert second["grant"]["jti"] != first["grant"]["jti"]


async def test_what_is_in_doubt_blocks_and_nothing_is_prepared(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await crashed(broker)
    before = await broker.entries(run)
    more: dict[str, Any] = {"epoch": 2, "who": "k2", "resource": "order/1", "args": {"amount": 1, "memo": "again"}}
    answer = await broker.begin(run, "new", **more)
    assert (answer["outcome"], answer["step"], answer["blocked"]) == ("in_doubt", "old", True)
    assert await broker.entries(run) == before
    what = call("new", epoch=2, args={"amount": 1, "memo": "again"})
    advice = await prepare(broker.ports, broker.agent("k2"), run, what, broker.request())
    assert (advice["outcome"], advice["blocked"]) == ("in_doubt", True)
    assert await broker.entries(run) == before


async def test_in_its_own_epoch_a_retry_under_a_new_id_waits(broker: Hand) -> None:
    """A model that was told of an error asks again: the first one may have happened."""
    run = await opened(broker)
    await used(broker, run, "one", 1)
    await broker.begin(run, "one", id_source=IdSource.CALL_ID)
    answer = await broker.begin(run, "two", id_source=IdSource.CALL_ID)
    assert (answer["outcome"], answer["step"], answer["blocked"]) == ("in_doubt", "one", True)
    assert (await broker.begin(run, "three", args={"amount": 7}))["outcome"] == "run"


async def test_starting_a_suspected_duplicate_is_refused_and_recorded(broker: Hand) -> None:
    run = await left_completed(broker)
    await again(broker, run, "new", 1)
    what = call("new", epoch=2, id_source=IdSource.CALL_ID, context={"decide": allow()})
    with pytest.raises(DuplicateSuspected) as caught:
        await start(broker.ports, broker.agent("k2"), run, what, broker.request())
    assert caught.value.more == {"step": "new", "of": "old"}
    assert (await broker.entries(run))[-1] == "decision"


async def test_starting_under_another_name_what_is_in_doubt_is_refused(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await crashed(broker)
    await again(broker, run, "new", 1)
    what = call("new", epoch=2, id_source=IdSource.CALL_ID, context={"decide": allow()})
    with pytest.raises(StepInDoubt) as caught:
        await start(broker.ports, broker.agent("k2"), run, what, broker.request())
    assert caught.value.more == {"step": "old"}


async def test_a_fenced_holder_takes_nothing_up(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await crashed(broker)
    before = await broker.entries(run)
    with pytest.raises(StaleEpoch):
        await broker.begin(run, "new", resource="order/1", id_source=IdSource.CALL_ID)
    assert await broker.entries(run) == before


async def test_one_that_was_fenced_while_it_looked_takes_nothing_up(broker: Hand) -> None:
    """The second look may show an epoch that the first one did not."""
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await crashed(broker)

    class Slow(Counting):
        async def load(self, query: Query) -> Loaded:
            if query.sought is not None and len(self.queries) == 1:
                broker.clock.tick(broker.ports.limits.lease_ms + 1)
                other = replace(broker, ports=replace(broker.ports, store=broker.store))
                await other.open(who="k3")
            return await super().load(query)

    slow = Slow(broker.ports.store)
    ports = broker.ports
    broker.ports = replace(ports, store=slow)  # type: ignore[arg-type]
    with pytest.raises(StaleEpoch):
        await again(broker, run, "new", 1)
    broker.ports = ports
    assert "step_adopted" not in await broker.entries(run)


async def test_two_new_ids_at_once_take_up_one_step_once(broker: Hand) -> None:
    run = await opened(broker)
    await used(broker, run, "old", 1)
    await crashed(broker)
    answers = await asyncio.gather(*(again(broker, run, f"new_{number}", 1) for number in range(4)))
    assert [answer["outcome"] for answer in answers] == ["in_doubt"] * 4
    assert {answer["step"] for answer in answers} == {"old"}
    assert sum("blocked" in answer for answer in answers) == 3
    assert (await broker.entries(run)).count("step_adopted") == 1
