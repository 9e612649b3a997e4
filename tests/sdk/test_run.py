"""A run's beginning and end: what leaving means, waiting for a lease, the heartbeat, being fenced."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, LoopError, faces
from scripted import RUN, Reply, ScriptedBroker, opened, problem, scripted
from stepgrant import errors
from stepgrant._flows import Send, Sleep
from stepgrant._run_flows import opening, prepare


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------------------------------ opening


@faces
async def test_what_is_told_on_opening(face: Face, broker: ScriptedBroker) -> None:
    options = {
        "input": {"order": [1]}, "version": "3", "labels": {"team": "shop"}, "principal": "ann", "takeover": True
    }  # fmt: skip
    async with face.run("order-1", **broker.at(**options)):
        pass
    async with face.run("order-1", **broker.at()):
        pass

    full, bare = (seen.body for seen in broker.calls("runs"))
    assert full == {"agent": "agent", "run_key": "order-1", **options}
    assert bare == {"agent": "agent", "run_key": "order-1"}


@faces
async def test_what_a_held_run_shows(face: Face, broker: ScriptedBroker) -> None:
    doubt = {"step": "charge", "tool": "charge", "attempt": 1, "why": "fenced", "options": ["person"]}
    history = {"steps": 3, "outcomes": {"completed": 2}, "tools": {"charge": 1}, "parked_ms": 5}
    answer = opened(epoch=4, resumed=True, input={"order": 7}, has_input=True, in_doubt=[doubt], history=history)
    broker.will("runs", Reply(answer))
    async with face.run(**broker.at()) as held:
        assert (held.id, held.key, held.agent, held.epoch) == (RUN, "job", "agent", 4)
        assert (held.resumed, held.input, held.fenced) == (True, {"order": 7}, False)
        assert held.steps_in_doubt == ("charge",)
        assert held.history == history
        assert repr(held).endswith(f"({RUN}, key='job', epoch=4)")


@faces
async def test_lease_of_another_holder_is_waited_for(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.will("runs", *[problem("lease_held", 409, retry_after_ms=80)] * 2)
    waits: list[float | None] = []
    async with face.run(**broker.at(on_wait=lambda held: waits.append(held.retry_after))):
        pass

    calls = broker.calls("runs")
    assert waits == [0.08, 0.08]
    assert calls[2].at - calls[0].at >= 0.16
    assert len({seen.headers["idempotency-key"] for seen in calls}) == 3
    assert "run job is held by another process; waiting" in caplog.text


def test_lease_that_is_always_renewed_is_not_waited_for_for_ever(broker: ScriptedBroker) -> None:
    broker.will("runs", *[problem("lease_held", 409, retry_after_ms=50)] * 50)
    order = stepgrant.run("job", agent="agent", **broker.at(timeouts=stepgrant.Timeouts(lease=0.2))).order
    means = prepare(order)
    waits: list[float] = []

    def open_by_hand() -> None:
        """Time passes by the waits alone: a slow machine takes no try away."""
        flow = opening(order, means, clock=lambda: sum(waits))
        effect = next(flow)
        while True:
            if isinstance(effect, Sleep):
                waits.append(effect.seconds)
                effect = flow.send(None)
            else:
                assert isinstance(effect, Send)
                effect = flow.send(means.blocking.send(effect.request))

    with pytest.raises(errors.LeaseHeld):
        open_by_hand()
    means.blocking.close()

    assert 2 <= len(waits) <= 3
    assert all(wait >= 0.05 for wait in waits)
    assert sum(waits) < 0.2
    assert len(broker.calls("runs")) == len(waits) + 1
    assert broker.verbs[-1] == "runs"


@faces
async def test_without_patience_a_lease_is_not_waited_for(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", problem("lease_held", 409, retry_after_ms=50))
    with pytest.raises(errors.LeaseHeld):
        async with face.run(**broker.at(timeouts=stepgrant.Timeouts(lease=0))):
            pytest.fail("nobody may enter")

    assert len(broker.calls("runs")) == 1
    assert broker.verbs[-1] == "runs"


@faces
@pytest.mark.parametrize(
    ("item", "error"),
    [
        (problem("policy_denied", 403, reasons=["open_not_listed"], decision_id="dec_1"), errors.Denied),
        (problem("approval_required", 403, approval_id="apr_1", answer_by=5), errors.ApprovalRequired),
        (problem("quarantined", 403), errors.Quarantined),
        (problem("duplicate_request", 409), errors.BrokerError),
        (problem("forbidden", 403), errors.BrokerError),
    ],
    ids=["denied", "approval", "quarantined", "other input", "forbidden"],
)
async def test_refused_opening(face: Face, broker: ScriptedBroker, item: Reply, error: type[Exception]) -> None:
    broker.will("runs", item)
    with pytest.raises(error):
        async with face.run(**broker.at()):
            pytest.fail("nobody may enter")

    assert broker.verbs == ["runs"]
    with pytest.raises(errors.ConfigurationError, match="outside of a run"):
        stepgrant.step("plan", lambda: 1)


def test_input_that_is_not_json(broker: ScriptedBroker) -> None:
    with pytest.raises(errors.NotJson, match="the run's input is not JSON at /at"):
        stepgrant.run("job", agent="agent", input={"at": object()}, **broker.at())


def test_a_run_is_entered_once(broker: ScriptedBroker) -> None:
    opening = stepgrant.run("job", agent="agent", **broker.at())
    with opening:
        pass
    with pytest.raises(errors.ConfigurationError, match="entered already"), opening:
        pytest.fail("nobody may enter")


def test_runs_inside_of_each_other(broker: ScriptedBroker) -> None:
    broker.will("runs", Reply(opened(run="run_outer")), Reply(opened(run="run_inner")))
    tool = stepgrant.tool(name="charge")(lambda: stepgrant.current_step().run_id)
    with stepgrant.run("outer", agent="agent", **broker.at()):
        with stepgrant.run("inner", agent="agent", **broker.at()):
            assert tool() == "run_inner"
        assert tool() == "run_outer"


# ------------------------------------------------------------------------------------------------------------ leaving


@faces
async def test_clean_end_completes_with_the_result(face: Face, broker: ScriptedBroker) -> None:
    async with face.run(**broker.at()) as held:
        held.result = {"charged": [1, 2]}
    async with face.run(**broker.at()):
        pass

    with_result, without = (seen.body for seen in broker.calls("run.complete"))
    assert with_result == {"epoch": 1, "result": {"charged": [1, 2]}}
    assert without == {"epoch": 1}


@faces
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ApprovalRequired(approval_id="apr_1"), "awaiting_approval"),
        (errors.InDoubt(step="charge"), "in_doubt"),
        (LoopError(), "suspended"),
        (ValueError("the agent's own"), "error"),
        (errors.Denied(reasons=["no"]), "error"),
        (KeyboardInterrupt(), "requested"),
        (SystemExit(1), "requested"),
        (asyncio.CancelledError(), "requested"),
        (ExceptionGroup("tasks", [ValueError(), errors.InDoubt(step="a")]), "in_doubt"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), errors.ApprovalRequired()]), "awaiting_approval"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_exception_parks_the_run_and_goes_on(
    face: Face, broker: ScriptedBroker, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)) as caught:
        async with face.run(**broker.at(passthrough=(LoopError,))):
            raise error

    assert caught.value is error
    assert broker.verbs == ["runs", "run.park"]
    assert broker.calls("run.park")[0].body.get("reason", "requested") == reason


@faces
async def test_run_that_cannot_be_parked_does_not_hide_the_exception(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.will("run.park", problem("wrong_holder", 409))
    with pytest.raises(ValueError, match="the agent's own"):
        async with face.run(**broker.at()):
            raise ValueError("the agent's own")

    assert "could not be parked (stale_epoch); its lease will lapse" in caplog.text


@faces
async def test_run_with_a_doubt_is_not_completed_but_parked(face: Face, broker: ScriptedBroker) -> None:
    broker.will("run.complete", problem("step_in_doubt", 409, detail="1 step(s) are in doubt"))
    with pytest.raises(errors.InDoubt):
        async with face.run(**broker.at()):
            pass

    assert broker.verbs == ["runs", "run.complete", "run.park"]
    assert broker.calls("run.park")[0].body["reason"] == "in_doubt"


@faces
async def test_result_that_is_not_json_completes_nothing(face: Face, broker: ScriptedBroker) -> None:
    with pytest.raises(errors.NotJson, match="the run's result is not JSON at /0"):
        async with face.run(**broker.at()) as held:
            held.result = [object()]

    assert broker.verbs == ["runs", "run.park"]


@faces
@pytest.mark.parametrize(
    ("end", "verb", "body"),
    [
        (lambda held: (held.complete, 1), "run.complete", {"epoch": 1, "result": 1}),
        (lambda held: (held.complete,), "run.complete", {"epoch": 1}),
        (lambda held: (held.fail, "no stock"), "run.fail", {"epoch": 1, "result": "no stock"}),
        (lambda held: (held.cancel,), "run.cancel", {"epoch": 1}),
        (lambda held: (held.park, "suspended"), "run.park", {"epoch": 1, "reason": "suspended"}),
    ],
    ids=["complete with", "complete", "fail", "cancel", "park"],
)
async def test_run_that_was_ended_by_hand(
    face: Face, broker: ScriptedBroker, end: Any, verb: str, body: dict[str, Any]
) -> None:
    tool = face.tool(lambda: 1, name="charge")
    async with face.run(**broker.at()) as held:
        await face.call(*end(held))
        assert not held.fenced
        with pytest.raises(errors.RunNotHeld):
            await face.call(tool)

    assert broker.verbs == ["runs", verb]
    assert broker.calls(verb)[0].body == body
