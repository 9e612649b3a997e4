"""The guard: when the tool runs, what is told of how it ended, and that nothing runs that should not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, Target, call_once, faces
from scripted import Reply, ScriptedBroker, problem, scripted
from stepgrant import errors

REPLAY = {"outcome": "replay", "step": "charge", "attempt": 1, "state": "completed"}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------------------ outcomes of begin


@faces
async def test_replay_gives_the_recorded_result_and_the_tool_does_not_run(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply({**REPLAY, "result": {"receipt": 7}, "withheld": False}))
    target = Target()

    assert await call_once(face, target, broker.at()) == {"receipt": 7}
    assert target.reached == 0
    assert broker.calls("complete") == []


@faces
@pytest.mark.parametrize(
    ("outcome", "error", "fields"),
    [
        (
            {"outcome": "denied", "reasons": ["no_rule_matched"], "decision_id": "dec_1"},
            errors.Denied,
            {"reasons": ("no_rule_matched",), "decision_id": "dec_1", "tool": "charge", "step": "charge-1"},
        ),
        (
            {"outcome": "approval_required", "approval_id": "apr_1", "answer_by": 5, "groups": [], "why_again": None},
            errors.ApprovalRequired,
            {"approval_id": "apr_1", "answer_by": 5},
        ),
        (
            {"outcome": "in_doubt", "step": "charge-1", "tool": "charge", "attempt": 2, "why": "fenced",
             "options": ["reconcile", "person"], "reconciles": 0, "idempotency_key": "k", "since": 1},
            errors.InDoubt,
            {"step": "charge-1", "attempt": 2, "why": "fenced", "options": ("reconcile", "person")},
        ),
        (
            {"outcome": "suspected_duplicate", "of": "charge-0", "options": ["replay", "run"]},
            errors.SuspectedDuplicate,
            {"of": "charge-0", "options": ("replay", "run")},
        ),
        (
            {**REPLAY, "state": "failed", "failure": {"status": "failed", "error": "KeyError: no such order"}},
            errors.StepFailed,
            {"step": "charge", "status": "failed", "error": "KeyError: no such order"},
        ),
        ({**REPLAY, "result": None, "withheld": True}, errors.ResultWithheld, {"step": "charge"}),
    ],
    ids=["denied", "approval", "in doubt", "duplicate", "recorded failure", "withheld"],
)  # fmt: skip
async def test_outcome_under_which_the_tool_does_not_run(
    face: Face, broker: ScriptedBroker, outcome: dict[str, Any], error: type[Exception], fields: dict[str, Any]
) -> None:
    broker.will("begin", Reply(outcome))
    target = Target()
    with pytest.raises(error) as caught:
        await call_once(face, target, broker.at())

    assert {name: getattr(caught.value, name) for name in fields} == fields
    assert target.reached == 0
    assert [seen.verb for seen in broker.seen if seen.verb in {"complete", "fail", "suspend"}] == []


@faces
@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("step_drift", 409, errors.StepDrift),
        ("stale_epoch", 409, errors.StaleEpoch),
        ("run_ended", 409, errors.RunEnded),
        ("quarantined", 403, errors.Quarantined),
        ("policy_denied", 403, errors.Denied),
        ("too_large", 413, errors.BrokerError),
        ("budget_exhausted", 429, errors.BrokerError),
    ],
)
async def test_refused_begin_runs_nothing(
    face: Face, broker: ScriptedBroker, code: str, status: int, error: type[Exception]
) -> None:
    broker.will("begin", *[problem(code, status)] * 20)
    target = Target()
    with pytest.raises(error):
        await call_once(face, target, broker.at(), impatient_for="begin")

    assert target.reached == 0


@faces
async def test_start_waits_for_an_older_credential_to_die(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("prior_credential_live", 409, retry_after_ms=100))
    target = Target()
    assert await call_once(face, target, broker.at()) == "ok"

    first, second = broker.calls("begin")
    assert second.at - first.at >= 0.1
    assert second.headers["idempotency-key"] == first.headers["idempotency-key"]
    # It may be the credential of a reply that was lost here, so the call goes on as the same one.
    assert second.body["not_received"] is True


@faces
async def test_start_does_not_wait_for_ever(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", *[problem("prior_credential_live", 409, retry_after_ms=50)] * 50)
    target = Target()
    tool = face.tool(lambda: target.act(), name="charge")  # noqa: PLW0108  # needs a signature
    with pytest.raises(errors.PriorCredentialLive):
        async with face.run(**broker.at(timeouts=stepgrant.Timeouts(prior_credential=0.2))):
            await face.call(tool)

    assert target.reached == 0
    assert 1 <= len(broker.calls("begin")) < 10
