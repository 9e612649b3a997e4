"""What a store remembers of runs: it equals a look, others who write are noticed, and nobody is refused by a memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.hand import REGO, Hand, allow, ask, deny, hand
from fakes.remembered import opened, same
from fakes.world import call
from stepgrant_broker.domain.errors import (
    FateUnknown,
    PolicyUnavailable,
    Quarantined,
    StaleEpoch,
    StepgrantFault,
    StoreUnavailable,
    WrongHolder,
)
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.policy.bundle import Bundle, from_files
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.suspend import suspend

STEPS = ("a", "b", "c")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Hand]:
    async with hand(tmp_path) as made:
        yield made


def looks(broker: Hand, monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """The queries that are looked up from now on."""
    asked: list[Query] = []
    load = broker.store.load

    async def counted(query: Query) -> Loaded:
        asked.append(query)
        return await load(query)

    monkeypatch.setattr(broker.store, "load", counted)
    return asked


def beside(broker: Hand) -> SqliteStore:
    """Another process on the same database; it has to be closed."""
    return SqliteStore(
        broker.store._readers._file.path, clock=broker.clock, seal=broker.store._seal
    )  # fmt: skip


async def came_of(call: Awaitable[dict[str, Any]]) -> str:
    """The outcome, or the name of the error."""
    try:
        return str((await call)["outcome"])
    except Exception as error:  # noqa: BLE001 - whichever it is
        return type(error).__name__


# --- it saves looks --------------------------------------------------------------------------------------------------


async def test_steps_of_a_run_that_was_opened_here_are_decided_without_a_look(
    broker: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(broker)
    asked = looks(broker, monkeypatch)
    for number in range(50):
        assert (await broker.begin(run, f"s{number}"))["outcome"] == "run"
        await broker.complete(run, f"s{number}")
    assert asked == []
    assert (await broker.begin(run, "s3"))["outcome"] == "replay"
    assert [query.step for query in asked] == ["s3"]


async def test_what_is_recalled_writes_the_same_entries(broker: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for key, recall in (("with", None), ("without", lambda _: None)):
        if recall is not None:
            monkeypatch.setattr(broker.store, "recall", recall)
        run = await opened(broker, key)
        await broker.begin(run, "two")
        kinds.append(await broker.entries(run))
    assert kinds[0] == kinds[1]


# --- it equals a look ------------------------------------------------------------------------------------------------

Deed = Callable[[Hand, str, str], Awaitable[object]]


async def _fail(broker: Hand, run: str, step: str) -> object:
    who, request = broker.agent(), broker.request()
    return await fail(broker.ports, who, run, step, 1, 1, status=FailStatus.FAILED, error="e", request=request)


DEEDS: dict[str, Deed] = {
    "begin": lambda broker, run, step: broker.begin(run, step),
    "deny": lambda broker, run, step: broker.begin(run, step, deny()),
    "ask": lambda broker, run, step: broker.begin(run, step, ask()),
    "count": lambda broker, run, step: broker.begin(run, step, {**allow(), "labels": ["seen"], "meters": {"m": 2}}),
    "complete": lambda broker, run, step: broker.complete(run, step),
    "fail": _fail,
    "suspend": lambda broker, run, step: suspend(broker.ports, broker.agent(), run, step, 1, 1, broker.request()),
    "heartbeat": lambda broker, run, _: heartbeat(broker.ports, broker.agent(), run, 1, broker.request()),
    "redeem": lambda broker, run, step: broker.redeem(f"jti-{run}-{step}"),
    "quarantine": lambda broker, run, _: quarantine(broker.ports, broker.operator, "run", run),
    "park": lambda broker, run, _: park(broker.ports, broker.agent(), run, 1, "p", broker.request()),
    "resume": lambda broker, _, __: broker.open(who="k2"),
}


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(sorted(DEEDS)), st.sampled_from(STEPS)), max_size=12))
def test_at_each_moment_a_recollection_is_what_a_look_shows(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, str]]
) -> None:
    async def play() -> None:
        async with hand(tmp_path_factory.mktemp("story")) as broker:
            run = await opened(broker)
            for deed, step in story:
                with contextlib.suppress(StepgrantFault):
                    await DEEDS[deed](broker, run, step)
                await same(broker, run, "first", *STEPS)

    asyncio.run(play())


# --- others write, too -----------------------------------------------------------------------------------------------


async def test_a_kill_switch_that_another_process_throws_stops_the_next_step(broker: Hand) -> None:
    run = await opened(broker)
    assert await same(broker, run, "s1") == 1
    other = beside(broker)
    await quarantine(replace(broker.ports, store=other, reads=other), broker.operator, "agent", "agent")
    before = await broker.entries(run)
    with pytest.raises(Quarantined):
        await broker.begin(run, "s1")
    assert await broker.entries(run) == before
    await other.close()


async def activated_beside(broker: Hand) -> tuple[str, Bundle]:
    """Another policy that another process activated; the engine here has not followed yet."""
    bundle = from_files({"stepgrant/main.rego": REGO + "\n# another text\n"})
    other = beside(broker)
    ports = replace(broker.ports, store=other, reads=other)
    revision = await next_revision(ports, bundle.digest)
    await activate_policy(ports, "acme", None, revision=revision, text=bundle.files)
    await other.close()
    return revision, bundle


async def test_a_policy_that_another_process_activates_decides_the_next_step(broker: Hand) -> None:
    run = await opened(broker)
    revision, bundle = await activated_beside(broker)
    before = await broker.entries(run)
    with pytest.raises(PolicyUnavailable, match="is active"):
        await broker.begin(run, "s1")
    assert await broker.entries(run) == before
    await broker.engine.load(revision, bundle)
    assert (await broker.begin(run, "s1"))["outcome"] == "run"


async def test_a_policy_that_another_process_activates_decides_advice_too(broker: Hand) -> None:
    """Nothing is granted by a prepare, but its decision is recorded."""
    run = await opened(broker)
    await activated_beside(broker)
    before = await broker.entries(run)
    with pytest.raises(PolicyUnavailable, match="is active"):
        await prepare(broker.ports, broker.agent(), run, call("s1"), broker.request())
    assert await broker.entries(run) == before


async def test_a_step_that_another_process_finished_is_not_done_again(broker: Hand) -> None:
    """Also where this process wrote to the run since: what it missed in between is not taken for missing."""
    run = await opened(broker)
    other = beside(broker)
    there = replace(broker, ports=replace(broker.ports, store=other, reads=other))
    await there.begin(run, "theirs")
    await there.complete(run, "theirs")
    assert (await broker.begin(run, "mine"))["outcome"] == "run"
    assert await came_of(broker.begin(run, "theirs")) == "replay"
    await other.close()


async def test_who_was_taken_over_in_another_process_gets_nothing_and_who_took_over_is_not_refused(
    broker: Hand,
) -> None:
    run = await opened(broker)
    other = beside(broker)
    there = replace(broker, ports=replace(broker.ports, store=other, reads=other))
    broker.clock.tick(broker.ports.limits.lease_ms + 1)
    assert (await there.open(who="k2"))["epoch"] == 2
    before = await broker.entries(run)
    with pytest.raises(StaleEpoch):
        await broker.begin(run, "s1")
    assert await broker.entries(run) == before
    assert await came_of(broker.begin(run, "s1", who="k2", epoch=2)) == "run"
    with pytest.raises(WrongHolder):
        await broker.begin(run, "s1", who="k1", epoch=2)
    await other.close()


async def test_a_run_that_somebody_else_goes_on_with_is_forgotten(broker: Hand) -> None:
    run = await opened(broker)
    other = beside(broker)
    there = replace(broker, ports=replace(broker.ports, store=other, reads=other))
    tried: list[bool] = []
    for number in range(6):
        await there.begin(run, f"there-{number}")
        tried.append(broker.store.recall(Query("acme", run=run, step="new")) is not None)
        await broker.begin(run, f"here-{number}")
    assert tried == [True, False, False, False, False, False]
    await other.close()


# --- what is not sure is not remembered ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable("locked"), FateUnknown("lost"), asyncio.CancelledError()])
async def test_what_became_of_a_commit_is_not_known(
    broker: Hand, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run = await opened(broker)
    put = broker.store._writer.inbox.put

    def lost(work: Any) -> Any:  # noqa: ANN401 - as of `Inbox.put`
        done = put(work)
        if getattr(work, "look", None) is not None:
            return done

        async def fail_after() -> None:
            await done
            raise error

        return fail_after()

    monkeypatch.setattr(broker.store._writer.inbox, "put", lost)
    with pytest.raises(type(error)):
        await broker.begin(run, "s1")
    assert broker.store.recall(Query("acme", run=run, step="s2")) is None


async def test_keys_that_are_wrapped_anew_are_looked_up(broker: Hand) -> None:
    run = await opened(broker)
    assert await same(broker, run, "s1") == 1
    await broker.store.rewrap([])
    assert await same(broker, run, "s1") == 0
