"""The heartbeat, and what it means to be fenced."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stepgrant
from faces import Face, faces
from scripted import RUN, Lost, Reply, ScriptedBroker, Seen, opened, problem, scripted
from stepgrant import _heartbeat, errors
from stepgrant._heartbeat import Failing


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


class LoopError(Exception):
    """Stands for what a framework leaves its loop with."""


# ---------------------------------------------------------------------------------------------- heartbeat and fencing


PATIENCE_S = 60.0
MANY = 5_000
"""More beats than there can be: one that a busy machine answers too late is asked for again."""


def beats(broker: ScriptedBroker) -> int:
    return len(broker.calls("run.heartbeat"))


def until(true: Callable[[], object]) -> None:
    """Block this thread, and the event loop with it, until then: the heartbeat's own thread beats all the same."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@faces
async def test_lease_is_renewed_while_nothing_else_does(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(lease_ms=300)))
    begun = time.monotonic()
    async with face.run(**broker.at()):
        until(lambda: beats(broker) >= 5)
        seen = broker.calls("run.heartbeat")
        # A third of the lease lies between two, and before the first one.
        assert len(seen) <= (time.monotonic() - begun) / 0.1
    after = beats(broker)
    await asyncio.sleep(0.3)

    assert beats(broker) == after
    assert seen[0].path == f"/v1/runs/{RUN}/heartbeat"
    assert {one.body["epoch"] for one in seen} == {1}
    assert len({one.headers["idempotency-key"] for one in seen}) == len(seen)


@faces
async def test_calls_renew_the_lease_too(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(lease_ms=600)))
    tool = face.tool(lambda: 1, name="charge")
    begun, ended = [time.monotonic()], []
    async with face.run(**broker.at()):
        for _ in range(8):
            ended.append(time.monotonic())
            await asyncio.sleep(0.05)
            begun.append(time.monotonic())
            await face.call(tool)
        ended.append(time.monotonic())
    begun.append(ended[-1])
    ended.append(time.monotonic())

    # A beat is due after 0.2 s without a call; an idle machine makes no such pause, a busy one may.
    pauses = [later - earlier for earlier, later in zip(begun, ended[1:], strict=False)]
    assert beats(broker) <= sum(int(pause / 0.2) for pause in pauses)


@faces
@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("stale_epoch", 409, errors.StaleEpoch),
        ("run_ended", 409, errors.RunEnded),
        ("quarantined", 403, errors.Quarantined),
        ("wrong_holder", 409, errors.StaleEpoch),
    ],
)
async def test_heartbeat_learns_that_the_run_is_lost(
    face: Face, broker: ScriptedBroker, code: str, status: int, error: type[Exception]
) -> None:
    broker.will("runs", Reply(opened(lease_ms=150)))
    broker.will("run.heartbeat", *[problem(code, status)] * MANY)
    tool = face.tool(lambda: pytest.fail("the run is lost"), name="charge")

    async def agent() -> None:
        async with face.run(**broker.at()) as held:
            until(lambda: held.fenced)
            asked = len(broker.seen)
            for _ in range(2):
                with pytest.raises(error):
                    await face.call(tool)
            with pytest.raises(error):
                await face.call(held.park)
            assert len(broker.seen) == asked

    with pytest.raises(error) as caught:
        await agent()

    assert broker.verbs == ["runs"]
    assert caught.value.__cause__ is None


@faces
async def test_fenced_while_a_tool_runs(face: Face, broker: ScriptedBroker) -> None:
    """Its credential stops working at once, and what it returns is not returned."""
    in_use = threading.Event()

    def fenced_once_in_use(_: Seen) -> Reply:
        return problem("stale_epoch", 409) if in_use.is_set() else Reply({"run": RUN, "epoch": 1, "state": "open"})

    broker.will("runs", Reply(opened(lease_ms=150)))
    broker.will("run.heartbeat", *[fenced_once_in_use] * MANY)

    def charge() -> str:
        credential = stepgrant.current_credential()
        credential.headers("POST", "https://tool.example/")
        in_use.set()
        until(lambda: runs[0].fenced)
        with pytest.raises(errors.StaleEpoch):
            credential.headers("POST", "https://tool.example/")
        return "charged"

    async def agent() -> None:
        async with face.run(**broker.at()) as held:
            runs.append(held)
            await face.call(face.tool(charge))

    runs: list[stepgrant.Run] = []
    with pytest.raises(errors.StaleEpoch):
        await agent()

    assert broker.verbs == ["runs", "begin"]


@faces
async def test_exception_that_leaves_a_fenced_run_is_the_one_that_is_seen(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("stale_epoch", 409))
    tool = face.tool(lambda: 1, name="charge")

    async def agent() -> None:
        async with face.run(**broker.at()):
            with pytest.raises(errors.StaleEpoch):
                await face.call(tool)
            raise ValueError("the agent's own")

    with pytest.raises(ValueError, match="the agent's own"):
        await agent()

    assert broker.verbs == ["runs", "begin"]


@faces
async def test_beat_that_finds_no_broker_is_tried_again(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:

    def unavailable_until_said(_: Seen) -> Reply:
        said = "ledger_unavailable" in caplog.text
        return Reply({"run": RUN, "epoch": 1, "state": "open"}) if said else problem("ledger_unavailable", 503)

    broker.will("runs", Reply(opened(lease_ms=300)))
    broker.will("run.heartbeat", Lost(), *[unavailable_until_said] * MANY)
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()) as held:
        until(lambda: "ledger_unavailable" in caplog.text)
        said = beats(broker)
        until(lambda: beats(broker) >= said + 2)
        assert not held.fenced
        assert await face.call(tool) == 1


@faces
async def test_a_broker_that_is_away_is_told_once_and_once_more_when_it_is_back(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many beats fail meanwhile makes no difference."""
    monkeypatch.setattr(_heartbeat, "_FIRST_GAP_S", 1e9)  # no machine is so slow
    away = threading.Event()
    away.set()

    def unavailable(_: Seen) -> Reply:
        renewed = Reply({"run": RUN, "epoch": 1, "state": "open"})
        return problem("ledger_unavailable", 503, detail="disk full") if away.is_set() else renewed

    broker.will("runs", Reply(opened(lease_ms=150)))
    broker.will("run.heartbeat", *[Lost()] * 10, *[unavailable] * MANY)
    async with face.run(**broker.at()):
        until(lambda: "could not be renewed" in caplog.text)
        failed = beats(broker)
        until(lambda: beats(broker) >= failed + 20)
        away.clear()
        until(lambda: "is renewed again, after" in caplog.text)
    said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(said) == 2
    assert said[0].startswith(f"run {RUN}: the lease could not be renewed: ")


def test_what_goes_on_failing_is_told_ever_more_seldom() -> None:
    now = [0.0]
    failing = Failing(clock=lambda: now[0])
    told = []
    for second in range(20_000):
        now[0] = second
        if failing.again():
            told.append(second)
    assert told == [0, 10, 30, 70, 150, 310, 630, 1270, 2550, 5110, 8710, 12310, 15910, 19510]
    assert failing.over() == 19_999
    assert failing.over() is None
    assert failing.again()


def test_no_thread_is_left(broker: ScriptedBroker) -> None:
    with stepgrant.run("job", agent="agent", **broker.at()):
        assert [one for one in threading.enumerate() if one.name == f"stepgrant-heartbeat-{RUN}"]

    assert not [one for one in threading.enumerate() if one.name.startswith("stepgrant-heartbeat")]
