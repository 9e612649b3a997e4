"""The bounds of the embedded engine, and what happens when its process hangs, ends or lies."""

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engines import PATIENCE_S, Make, decided, lost, outcome, pid_of, process_of, served, until_gone
from policies import ALLOW, SLOW, call, one, slow
from stepgrant_broker.domain.decisions import Allow
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.channel import ON_THEIR_WAY
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid

OTHER = ALLOW.replace("listed", "other_rule")
SOON_S = 0.3
BUSY_S = 2.5
"""A deadline that a trivial query keeps on a busy machine too."""


@contextmanager
def stopped(engine: EmbeddedEngine) -> Iterator[None]:
    """The engine's process reads and answers nothing while the block runs, however fast the machine is."""
    process = pid_of(engine)
    os.kill(process, signal.SIGSTOP)
    yield
    os.kill(process, signal.SIGCONT)


async def asked(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """These queries, each sent or queued when this returns."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_more_callers_than_the_queue_holds_are_refused_at_once(make: Make) -> None:
    engine = await make(one(ALLOW), max_waiting=2)
    with stopped(engine):
        waiting = await asked(engine.evaluate(call()), engine.evaluate(call()))
        with pytest.raises(PolicyUnavailable, match="too many decisions are waiting") as caught:
            engine.evaluate(call()).send(None)  # at once: it does not even give up its turn
    assert caught.value.retry_after_ms
    assert [answer.raw is not None for answer in await asyncio.gather(*waiting)] == [True, True]
    assert isinstance(await decided(engine), Allow)


async def test_a_hang_costs_its_process_and_nobody_elses_decision(make: Make) -> None:
    engine = await make(one(SLOW))
    process = pid_of(engine)
    engine._deadline_s = SOON_S
    hanging = await asked(engine.evaluate(slow(300)))
    engine._deadline_s = PATIENCE_S
    waiting = await asked(*(decided(engine) for _ in range(5)))
    with pytest.raises(PolicyUnavailable, match="no decision within"):
        await hanging[0]
    assert all(isinstance(decision, Allow) for decision in await asyncio.gather(*waiting))
    assert pid_of(engine) != process
    await until_gone(process)


async def test_a_hang_ends_though_its_caller_went_away(make: Make) -> None:
    engine = await make(one(SLOW))
    process = process_of(engine)
    engine._deadline_s = SOON_S
    (leaving,) = await asked(engine.evaluate(slow(300)))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await asyncio.to_thread(process.wait, PATIENCE_S) == -signal.SIGKILL  # and not by its own alarm
    engine._deadline_s = PATIENCE_S
    assert isinstance(await served(engine), Allow)


async def test_a_hang_that_begins_when_nobody_waits_for_it_any_more_is_ended_too(make: Make) -> None:
    engine = await make(one(SLOW))
    process = process_of(engine)
    with stopped(engine):
        (first,) = await asked(decided(engine))
        engine._deadline_s = SOON_S
        # It expires before its turn, and hangs after it.
        assert await outcome(engine, slow(300)) == "unavailable"
    assert isinstance(await first, Allow)
    assert await asyncio.to_thread(process.wait, PATIENCE_S) == -signal.SIGKILL  # and not by its own alarm
    engine._deadline_s = PATIENCE_S
    assert isinstance(await served(engine), Allow)


async def test_a_long_queue_alone_costs_no_process(make: Make) -> None:
    engine = await make(one(SLOW))
    process = pid_of(engine)
    with stopped(engine):
        (first,) = await asked(decided(engine))
        engine._deadline_s = BUSY_S
        # What nobody waits for any more is dropped: otherwise those that hang would cost the process.
        queries = [call()] * (ON_THEIR_WAY - 1) + [slow(300)] * 40
        answers = await asyncio.gather(*(outcome(engine, query) for query in queries))
    assert set(answers) == {"unavailable"}
    assert isinstance(await first, Allow)
    engine._deadline_s = PATIENCE_S
    assert isinstance(await decided(engine), Allow)
    assert pid_of(engine) == process


async def test_a_killed_process_is_replaced(make: Make) -> None:
    engine = await make(one(ALLOW))
    for _ in range(3):
        os.kill(pid_of(engine), signal.SIGKILL)
        assert isinstance(await served(engine), Allow)


async def test_a_query_that_ends_the_process_takes_no_other_with_it(make: Make) -> None:
    engine = await make(one(ALLOW))
    with stopped(engine):
        (fatal,) = await asked(engine.evaluate(call()))
        waiting = await asked(*(decided(engine) for _ in range(5)))
        os.kill(pid_of(engine), signal.SIGSEGV)
    with pytest.raises(PolicyUnavailable, match="ended while deciding"):
        await fatal
    assert all(isinstance(decision, Allow) for decision in await asyncio.gather(*waiting))


async def test_losing_process_after_process_is_unavailable_for_a_moment(make: Make) -> None:
    engine = await make(one(ALLOW), max_losses=2, loss_window_s=3_600)
    for _ in range(2):
        assert isinstance(await decided(engine), Allow)
        await lost(engine)
    with pytest.raises(PolicyUnavailable, match="lost too often"):
        await engine.evaluate(call())
    engine._loss_window_s = 0.0  # the moment is over
    assert isinstance(await served(engine), Allow)


async def test_a_process_that_talks_nonsense_is_killed(make: Make) -> None:
    engine = await make(one(ALLOW))
    process = pid_of(engine)
    assert engine._channel is not None
    engine._channel.data_received(b"\xff\xff\xff\xff")
    await until_gone(process)
    engine = await make(one(ALLOW))
    process = pid_of(engine)
    assert engine._channel is not None
    engine._channel.data_received(b"\x00\x00\x00\x01U")  # an answer that nobody asked for
    await until_gone(process)
    assert isinstance(await decided(engine), Allow)


async def test_closing_refuses_whoever_waits_and_leaves_no_process(make: Make) -> None:
    engine = await make(one(ALLOW))
    process = pid_of(engine)
    os.kill(process, signal.SIGSTOP)
    waiting = await asked(*(engine.evaluate(call()) for _ in range(3)))
    await engine.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [PolicyUnavailable] * 3
    await until_gone(process)
    with pytest.raises(PolicyUnavailable, match="closed"):
        await engine.load("2:b", one(ALLOW))
    await engine.close()


async def test_closing_refuses_whoever_waits_for_another_process(make: Make) -> None:
    engine = await make(one(ALLOW))
    await lost(engine)
    (waiting,) = await asked(engine.evaluate(call()))
    await engine.close()
    async with asyncio.timeout(PATIENCE_S / 2):  # sooner than by its deadline
        with pytest.raises(PolicyUnavailable, match="closed"):
            await waiting


async def test_errors_leave_nothing_for_other_threads_to_drop(make: Make) -> None:
    engine = await make(one(ALLOW))
    for _ in range(20):
        with pytest.raises(PolicyUnavailable):
            await engine.evaluate(b"{")
        with pytest.raises(PolicyInvalid):
            await engine.load("2:b", one(ALLOW + "x if {\n"))
    # The library panics when an engine is dropped in another thread; pytest makes such a panic a failure.
    gc.collect()
    assert isinstance(await decided(engine), Allow)
