"""The bounds of the embedded engine, and what happens when its process hangs, ends or lies."""

import asyncio
import gc
import os
import signal
import time

import pytest

from engines import Make, decided, outcome, pid_of, served, until_gone
from lateness import lateness
from policies import ALLOW, SLOW, call, one, slow
from stepgrant_broker.domain.decisions import Allow
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.engine_process import QUERY_S
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.rego import Rego

OTHER = ALLOW.replace("listed", "other_rule")


def quickest(policy: Bundle, question: bytes) -> float:
    """How long it takes when nothing holds it up: the least of some times, in seconds."""
    took = []
    for _ in range(5):
        rego, before = Rego(policy.modules, policy.data), time.monotonic()
        rego.evaluate(question)
        took.append(time.monotonic() - before)
    return min(took)


async def test_more_callers_than_the_queue_holds_are_refused_at_once(make: Make) -> None:
    engine = await make(one(SLOW), max_waiting=2, deadline_s=5)
    waiting = [asyncio.ensure_future(engine.evaluate(slow(60))) for _ in range(2)]
    await asyncio.sleep(0)
    async with lateness() as late:
        before = time.monotonic()
        with pytest.raises(PolicyUnavailable, match="too many decisions are waiting") as caught:
            await engine.evaluate(call())
        took = time.monotonic() - before
    assert took < 0.1 + late.seconds
    assert caught.value.retry_after_ms
    await asyncio.gather(*waiting)
    assert isinstance(await decided(engine), Allow)


async def test_a_hang_costs_its_process_and_nobody_elses_decision(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=1.5)
    process = pid_of(engine)
    hanging = asyncio.ensure_future(engine.evaluate(slow(300)))
    await asyncio.sleep(0.75)
    waiting = [asyncio.ensure_future(decided(engine)) for _ in range(5)]
    with pytest.raises(PolicyUnavailable, match="no decision within"):
        await hanging
    assert all(isinstance(decision, Allow) for decision in await asyncio.gather(*waiting))
    assert pid_of(engine) != process
    await until_gone(process)


async def test_a_hang_ends_though_its_caller_went_away(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=0.2)
    process = pid_of(engine)
    leaving = asyncio.ensure_future(engine.evaluate(slow(300)))
    await asyncio.sleep(0.05)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await until_gone(process)
    assert isinstance(await served(engine), Allow)


async def test_a_hang_that_begins_when_nobody_waits_for_it_any_more_is_ended_too(make: Make) -> None:
    policy = one(SLOW)
    rego, before = Rego(policy.modules, policy.data), time.monotonic()
    rego.evaluate(slow(60))
    takes = time.monotonic() - before
    engine = await make(policy, deadline_s=1.5 * takes)
    process = pid_of(engine)
    # The first two take most of the deadline each, so the third expires before its turn and hangs after it.
    asked = [asyncio.ensure_future(outcome(engine, slow(length))) for length in (60, 60, 300)]
    before = time.monotonic()
    assert (await asyncio.gather(*asked))[2] == "unavailable"
    await until_gone(process)
    # Earlier than by the process's own alarm, unless this machine is very slow.
    assert time.monotonic() - before < max(2 * takes + QUERY_S - 0.1, 5 * takes)
    assert isinstance(await served(engine), Allow)


async def test_a_long_queue_alone_costs_no_process(make: Make) -> None:
    policy = one(SLOW)
    engine = await make(policy, deadline_s=15 * quickest(policy, slow(40)))
    process = pid_of(engine)
    answers = await asyncio.gather(*(engine.evaluate(slow(40)) for _ in range(40)), return_exceptions=True)
    late = [answer for answer in answers if isinstance(answer, PolicyUnavailable)]
    assert 0 < len(late) < 40
    # What nobody waits for any more is dropped, so the next caller does not wait for it either.
    await asyncio.sleep(0.2)
    assert isinstance(await served(engine), Allow)
    assert pid_of(engine) == process


async def test_a_killed_process_is_replaced(make: Make) -> None:
    engine = await make(one(ALLOW))
    for _ in range(3):
        os.kill(pid_of(engine), signal.SIGKILL)
        assert isinstance(await served(engine), Allow)


async def test_a_query_that_ends_the_process_takes_no_other_with_it(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=5)
    fatal = asyncio.ensure_future(engine.evaluate(slow(60)))
    waiting = [asyncio.ensure_future(decided(engine)) for _ in range(5)]
    await asyncio.sleep(0.05)
    os.kill(pid_of(engine), signal.SIGSEGV)
    with pytest.raises(PolicyUnavailable, match="ended while deciding"):
        await fatal
    assert all(isinstance(decision, Allow) for decision in await asyncio.gather(*waiting))


async def test_losing_process_after_process_is_unavailable_for_a_moment(make: Make) -> None:
    engine = await make(one(ALLOW), max_losses=2, loss_window_s=3_600)
    for _ in range(2):
        assert isinstance(await decided(engine), Allow)
        os.kill(pid_of(engine), signal.SIGKILL)
        await asyncio.sleep(0.05)
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
    engine = await make(one(SLOW), deadline_s=5)
    process = pid_of(engine)
    waiting = [asyncio.ensure_future(engine.evaluate(slow(200))) for _ in range(3)]
    await asyncio.sleep(0.05)
    await engine.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [PolicyUnavailable] * 3
    await until_gone(process)
    with pytest.raises(PolicyUnavailable, match="closed"):
        await engine.load("2:b", one(ALLOW))
    await engine.close()


async def test_closing_refuses_whoever_waits_for_another_process(make: Make) -> None:
    engine = await make(one(ALLOW), deadline_s=30)
    os.kill(pid_of(engine), signal.SIGKILL)
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(engine.evaluate(call()))
    await asyncio.sleep(0)
    await engine.close()
    async with asyncio.timeout(5):
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
