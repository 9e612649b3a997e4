"""The embedded engine beyond its port: reloads, bounds, and what happens when its process is lost."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import TypeAlias

import pytest
import uvloop

from policies import ALLOW, HEAD, SLOW, call, one, slow
from stepgrant_broker.domain.decisions import Allow, Decision, GrantSpec
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.rego import ENGINE

Make: TypeAlias = Callable[..., Awaitable[EmbeddedEngine]]
OTHER = ALLOW.replace("listed", "other_rule")


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[EmbeddedEngine] = []

    async def build(bundle: Bundle | None = None, revision: str = "1:a", **limits: float) -> EmbeddedEngine:
        numbers = count()
        engine = EmbeddedEngine(decision_ids=lambda: f"dec_{next(numbers)}", **limits)  # type: ignore[arg-type]
        made.append(engine)
        if bundle is not None:
            await engine.load(revision, bundle)
        return engine

    yield build
    for engine in made:
        await engine.close()


async def decided(engine: EmbeddedEngine, policy_input: bytes | None = None) -> Decision:
    return parse((await engine.evaluate(policy_input or call())).raw)


async def outcome(engine: EmbeddedEngine, policy_input: bytes) -> str:
    try:
        return type(await decided(engine, policy_input)).__name__
    except PolicyUnavailable:
        return "unavailable"


def pid_of(engine: EmbeddedEngine) -> int:
    assert engine._channel is not None
    return engine._channel._process._process.pid


async def test_nothing_is_decided_before_a_policy_is_loaded(make: Make) -> None:
    engine = await make()
    assert engine.revision is None
    with pytest.raises(PolicyUnavailable, match="no policy is loaded"):
        await engine.evaluate(call())


async def test_a_decision_names_its_engine_and_version(make: Make) -> None:
    engine = await make(one(ALLOW))
    assert (await engine.evaluate(call())).engine == ENGINE
    assert ENGINE.startswith("regorus/0.")


async def test_a_reload_decides_by_the_new_policy_and_ends_the_old_process(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    old = pid_of(engine)
    await engine.load("2:b", one(OTHER))
    answer = await engine.evaluate(call())
    assert (answer.revision, engine.revision) == ("2:b", "2:b")
    assert parse(answer.raw).reasons == ("other_rule",)
    await until_gone(old)


async def test_the_same_policy_may_be_loaded_twice(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    await engine.load("1:a", one(ALLOW))
    assert isinstance(await decided(engine), Allow)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ALLOW + "deny if {\n", "does_not_compile"),
        (ALLOW.replace("input.action.tool", "input.action.toool"), "unknown_input"),
        (ALLOW + "\nother if http.send({})\n", "builtin_refused"),
        (HEAD + 'decision := {"effect": "allow", "reasons": []} if input.tenant\n', "outside_contract"),
        (HEAD + 'decision := {"effect": "allow", "reasons": ["x"]}\n', "allows_nothing"),
        (HEAD + 'decision := {"allow": "true"} if input.tenant\n', "outside_contract"),
        (ALLOW.replace('input.action.tool == "probe.read"', "input.run.step_count + input.tenant"), "probe_failed"),
    ],
)
async def test_a_broken_edit_keeps_the_last_good_policy_and_says_where(make: Make, text: str, code: str) -> None:
    engine = await make(one(ALLOW), "1:a")
    process = pid_of(engine)
    with pytest.raises(PolicyInvalid) as caught:
        await engine.load("2:b", one(text))
    assert code in {finding.code for finding in caught.value.findings}
    assert (engine.revision, pid_of(engine)) == ("1:a", process)
    assert await decided(engine) == Allow(("listed",), GrantSpec())


async def test_a_policy_that_is_too_slow_is_not_loaded(make: Make) -> None:
    loops = "; ".join(f"some {name} in xs" for name in "abcdefgh")
    text = ALLOW.replace('input.action.tool == "probe.read"', f"{{\n\tinput.tenant\n\tcount([1 | {loops}]) > 0\n}}")
    engine = await make(one(ALLOW), "1:a", probe_deadline_s=0.2)
    with pytest.raises(PolicyInvalid, match=r"probe_failed: no decision within 0\.2 s"):
        await engine.load("2:b", one(text + "\nxs := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"))
    assert engine.revision == "1:a"


async def test_a_reload_under_load_answers_everybody(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    seen: set[tuple[str, str]] = set()

    async def ask() -> None:
        for _ in range(50):
            answer = await engine.evaluate(call())
            seen.add((answer.revision, parse(answer.raw).reasons[0]))

    asking = [asyncio.ensure_future(ask()) for _ in range(8)]
    await engine.load("2:b", one(OTHER))
    await asyncio.gather(*asking)
    await ask()
    assert seen == {("1:a", "listed"), ("2:b", "other_rule")}


async def test_two_reloads_at_once_end_in_one_of_them_whole(make: Make) -> None:
    engine = await make()
    await asyncio.gather(engine.load("1:a", one(ALLOW)), engine.load("2:b", one(OTHER)))
    answer = await engine.evaluate(call())
    assert (engine.revision, answer.revision, parse(answer.raw).reasons) == ("2:b", "2:b", ("other_rule",))


async def test_more_callers_than_the_queue_holds_are_refused_at_once(make: Make) -> None:
    engine = await make(one(SLOW), max_waiting=2, deadline_s=5)
    waiting = [asyncio.ensure_future(engine.evaluate(slow(60))) for _ in range(2)]
    await asyncio.sleep(0)
    before = time.monotonic()
    with pytest.raises(PolicyUnavailable, match="too many decisions are waiting") as caught:
        await engine.evaluate(call())
    assert time.monotonic() - before < 0.1
    assert caught.value.retry_after_ms
    await asyncio.gather(*waiting)
    assert isinstance(await decided(engine), Allow)


async def test_a_hang_costs_its_process_and_nobody_elses_decision(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=0.5)
    process = pid_of(engine)
    hanging = asyncio.ensure_future(engine.evaluate(slow(300)))
    await asyncio.sleep(0.35)
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
    assert isinstance(await decided(engine), Allow)


async def test_a_hang_that_begins_when_nobody_waits_for_it_any_more_is_ended_too(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=0.5)
    process = pid_of(engine)
    # The first two take most of the deadline each, so the third expires before its turn and hangs after it.
    asked = [asyncio.ensure_future(outcome(engine, slow(length))) for length in (55, 55, 300)]
    assert (await asyncio.gather(*asked))[2] == "unavailable"
    await until_gone(process)
    assert isinstance(await decided(engine), Allow)


async def test_a_long_queue_alone_costs_no_process(make: Make) -> None:
    engine = await make(one(SLOW), deadline_s=0.3)
    process = pid_of(engine)
    answers = await asyncio.gather(*(engine.evaluate(slow(30)) for _ in range(40)), return_exceptions=True)
    late = [answer for answer in answers if isinstance(answer, PolicyUnavailable)]
    assert 0 < len(late) < 40
    # What nobody waits for any more is dropped, so the next caller does not wait for it either.
    await asyncio.sleep(0.2)
    assert isinstance(await decided(engine), Allow)
    assert pid_of(engine) == process


async def test_a_killed_process_is_replaced(make: Make) -> None:
    engine = await make(one(ALLOW))
    for _ in range(3):
        os.kill(pid_of(engine), signal.SIGKILL)
        before = time.monotonic()
        served = False
        while not served and time.monotonic() - before < 1:
            try:
                served = isinstance(await decided(engine), Allow)
            except PolicyUnavailable:
                await asyncio.sleep(0.01)
        assert served


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
    engine = await make(one(ALLOW), max_losses=2, loss_window_s=0.5)
    for _ in range(2):
        assert isinstance(await decided(engine), Allow)
        os.kill(pid_of(engine), signal.SIGKILL)
        await asyncio.sleep(0.05)
    with pytest.raises(PolicyUnavailable, match="lost too often"):
        await engine.evaluate(call())
    await asyncio.sleep(0.5)
    assert isinstance(await decided(engine), Allow)


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


def test_it_runs_on_uvloop_too() -> None:
    async def use() -> None:
        engine = EmbeddedEngine(decision_ids=lambda: "dec_1", deadline_s=0.3)
        await engine.load("1:a", one(SLOW))
        assert isinstance(await decided(engine), Allow)
        with pytest.raises(PolicyUnavailable, match="no decision within"):
            await engine.evaluate(slow(300))
        await asyncio.sleep(0.3)
        assert isinstance(await decided(engine), Allow)
        await engine.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


async def until_gone(pid: int) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"process {pid} is still there")
