"""What the broker is told of how a tool ended, and what its caller gets."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, LoopError, Target, call_once, faces
from scripted import Lost, Reply, ScriptedBroker, granted, problem, scripted
from stepgrant import errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


# --------------------------------------------------------------------------------------------- what is told at the end


@faces
@pytest.mark.parametrize("effect", ["read", "idempotent", "once"])
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (errors.NotExecuted("the target was never called"), "not_executed"),
        (LookupError("declared as safe"), "not_executed"),
        (ValueError("the tool's own"), None),
    ],
    ids=["NotExecuted", "safe", "other"],
)
async def test_what_an_exception_says_of_the_effect(
    face: Face, broker: ScriptedBroker, effect: Any, raised: Exception, told: str | None
) -> None:
    broker.will("begin", Reply(granted("charge-1", effect=effect)))
    with pytest.raises(type(raised), match=str(raised)) as caught:
        await call_once(face, Target(raised), broker.at(), effect=effect, safe_exceptions=[LookupError])

    assert caught.value is raised
    assert (raised.__context__, raised.__cause__) == (None, None), "nothing of ours in the tool's own traceback"
    assert len(broker.calls("begin")) == 1
    (fail,) = broker.calls("fail")
    expected = told or ("failed" if effect == "read" else "unknown")
    assert fail.body == {
        "epoch": 1, "attempt": 1, "outcome": expected, "error": f"{type(raised).__name__}: {raised}"
    }  # fmt: skip
    assert broker.calls("complete") == []


@faces
async def test_effect_that_policy_tightened_decides(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply(granted("charge-1", effect="once")))
    with pytest.raises(ValueError, match="no"):
        await call_once(face, Target(ValueError("no")), broker.at(), effect="read")

    assert broker.calls("fail")[0].body["outcome"] == "unknown"


@faces
@pytest.mark.parametrize(
    "raised",
    [
        LoopError("an interrupt of a framework"),
        KeyboardInterrupt(),
        SystemExit(3),
        asyncio.CancelledError(),
        errors.ApprovalRequired(approval_id="apr_1"),
        errors.InDoubt(step="child"),
        errors.StaleEpoch("fenced"),
        errors.BrokerUnavailable(detail="no answer"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_control_flow_is_a_suspension(face: Face, broker: ScriptedBroker, raised: BaseException) -> None:
    with pytest.raises(type(raised)):
        await call_once(face, Target(raised), broker.at())

    assert broker.calls("fail") == broker.calls("complete") == []
    assert [seen.body for seen in broker.calls("suspend")] == [{"epoch": 1, "attempt": 1}]


def test_stop_iteration_of_a_tool_stays_one(broker: ScriptedBroker) -> None:
    target = Target(StopIteration("end"))
    tool = stepgrant.tool(name="charge")(lambda: target.act())  # noqa: PLW0108  # needs a signature
    with pytest.raises(StopIteration, match="end"), stepgrant.run("job", agent="agent", **broker.at()):
        tool()

    assert broker.calls("fail")[0].body["outcome"] == "unknown"


@faces
async def test_failure_that_cannot_be_told_says_so_and_is_still_raised(face: Face, broker: ScriptedBroker) -> None:
    broker.will("fail", *[Lost()] * 30)
    with pytest.raises(ValueError, match="the tool's own") as caught:
        await call_once(face, Target(ValueError("the tool's own")), broker.at(), impatient_for="outcome")

    assert caught.value.__notes__ == [
        "stepgrant: the outcome of step 'charge-1' could not be recorded (broker_unavailable)"
    ]


@faces
async def test_result_that_cannot_be_told_is_an_error_that_says_the_tool_ran(
    face: Face, broker: ScriptedBroker
) -> None:
    broker.will("complete", *[Lost()] * 30)
    target = Target()
    with pytest.raises(errors.BrokerUnavailable, match="charge ran, but its outcome could not be recorded"):
        await call_once(face, target, broker.at(), impatient_for="outcome")

    assert target.reached == 1


@faces
async def test_result_of_a_fenced_holder_is_not_returned(face: Face, broker: ScriptedBroker) -> None:
    broker.will("complete", problem("stale_epoch", 409))
    with pytest.raises(errors.StaleEpoch):
        await call_once(face, Target(), broker.at())

    assert broker.verbs == ["runs", "begin", "complete"]


@faces
async def test_refused_completion_is_raised_as_what_it_is(face: Face, broker: ScriptedBroker) -> None:
    broker.will("complete", problem("invalid_request", 400, detail="attempt 1 is not the step's attempt"))
    with pytest.raises(errors.BrokerError, match="attempt 1 is not") as caught:
        await call_once(face, Target("x"), broker.at())

    assert caught.value.code == "invalid_request"
    assert len(broker.calls("complete")) == 1


@faces
async def test_result_over_the_limit_is_withheld(face: Face, broker: ScriptedBroker) -> None:
    broker.will("complete", problem("too_large", 413))
    with pytest.raises(errors.BrokerError) as caught:
        await call_once(face, Target("x" * 1000), broker.at())

    assert caught.value.code == "too_large"
    assert broker.calls("complete")[1].body == {"epoch": 1, "attempt": 1, "withheld": True}


@faces
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ""),
        ({"items": [1, b"bytes"]}, "/items/1"),
        ({"at": {1: "a key that is no text"}}, "/at"),
        ([float("nan")], "/0"),
        ({"id": 2**53}, "/id"),
        ("\ud800", ""),
        ({"a/b": {1, 2}}, "/a~1b"),
    ],
    ids=["object", "bytes", "key", "nan", "integer", "surrogate", "set"],
)
async def test_result_that_is_not_json_is_withheld_because_the_effect_happened(
    face: Face, broker: ScriptedBroker, value: Any, path: str
) -> None:
    with pytest.raises(errors.NotJson) as caught:
        await call_once(face, Target(value), broker.at())

    assert (caught.value.what, caught.value.path) == ("the result of charge", path)
    assert [seen.body for seen in broker.calls("complete")] == [{"epoch": 1, "attempt": 1, "withheld": True}]


async def test_awaitable_of_a_blocking_tool_is_doubt_and_not_a_result(broker: ScriptedBroker) -> None:
    async def never() -> None: ...

    def forgetful() -> Any:
        return never()

    tool = stepgrant.tool(name="charge")(forgetful)
    with (
        pytest.raises(errors.ConfigurationError, match="returned an awaitable; nobody awaited it"),
        stepgrant.run("job", agent="agent", **broker.at()),
    ):
        tool()

    assert broker.calls("complete") == []
    assert broker.calls("fail")[0].body["outcome"] == "unknown"


@faces
@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        ((1, 2), [1, 2]),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (2.0, 2),
        (True, True),
        ({"list": [(1,)]}, {"list": [[1]]}),
        (None, None),
    ],
    ids=["tuple", "order of keys", "float", "bool", "deep", "nothing"],
)
async def test_first_run_gets_what_a_resumed_one_will_get(
    face: Face, broker: ScriptedBroker, value: Any, recorded: Any
) -> None:
    result = await call_once(face, Target(value), broker.at())

    assert repr(result) == repr(recorded)
