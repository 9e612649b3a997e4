"""Resume and takeover: policy decides, people may be asked, and an answer is about whoever asked."""

import pytest

from fakes.hand import Hand
from stepgrant_broker.domain.errors import (
    ApprovalNeeded,
    LeaseHeld,
    PolicyDenied,
)
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.enroll import Enrolment, enroll


async def test_a_refused_resume_enters_the_runs_chain_and_changes_nothing(broker: Hand) -> None:
    run = (await broker.open(labels={"stepgrant.run.resume": "deny"}))["run"]
    broker.clock.tick(31_000)
    with pytest.raises(PolicyDenied):
        await broker.open(who="k2")
    assert await broker.entries(run) == ["run_opened", "decision"]
    loaded = await broker.store.load(Query("acme", run=run))
    assert loaded.view.run is not None
    assert loaded.view.run.epoch == 1


async def test_a_resume_may_need_a_person_and_spends_the_answer(broker: Hand) -> None:
    run = (await broker.open(labels={"stepgrant.run.resume": "ask"}))["run"]
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded) as needed:
        await broker.open(who="k2")
    asked = str(needed.value.more["approval_id"])
    with pytest.raises(ApprovalNeeded) as again:
        await broker.open(who="k2")
    assert again.value.more["approval_id"] == asked
    await answer_resume(broker, asked, "approve")
    assert (await broker.open(who="k2"))["epoch"] == 2
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded) as spent:
        await broker.open(who="k3")
    assert spent.value.more["approval_id"] != asked
    assert await broker.entries(run)


async def answer_resume(broker: Hand, asked: str, verdict: str) -> None:
    """Answer with the digest behind the binding."""
    loaded = await broker.store.load(Query("acme", approval=asked))
    approval = loaded.view.approvals[asked]
    payloads = await broker.ports.reads.payloads("acme", approval.run, [approval.binding_c])
    await decide_approval(
        broker.ports, broker.approver(), asked, verdict=verdict,
        digest=payloads[approval.binding_c].value().decode().strip('"'), note=None, request=broker.request(),
    )  # fmt: skip


async def test_an_answer_to_one_subject_lets_no_other_one_in(broker: Hand) -> None:
    """Policy that allows because it sees the answer sees only one that is about whoever asks."""
    run = (await broker.open(labels={"stepgrant.run.resume": "seen", "stepgrant.run.takeover": "seen"}))["run"]
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    other = await enroll(broker.ports, "acme", None, Enrolment("other", ("agent",), (), jwk, "j3"))
    workload = await broker.store.workload(other["id"])
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded) as needed:
        await broker.open(who="k2")
    await answer_resume(broker, str(needed.value.more["approval_id"]), "approve")
    with pytest.raises(ApprovalNeeded) as theirs:
        await broker.open(who="k3", workload=workload)
    assert theirs.value.more["approval_id"] != needed.value.more["approval_id"]
    assert "run_resumed" not in await broker.entries(run)


async def test_an_answer_that_policy_saw_is_spent_by_the_resume(broker: Hand) -> None:
    await broker.open(labels={"stepgrant.run.resume": "seen"})
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded) as needed:
        await broker.open(who="k2")
    await answer_resume(broker, str(needed.value.more["approval_id"]), "approve")
    assert (await broker.open(who="k2"))["epoch"] == 2
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded):
        await broker.open(who="k3")


async def test_a_denied_resume_stays_denied(broker: Hand) -> None:
    await broker.open(labels={"stepgrant.run.resume": "ask"})
    broker.clock.tick(31_000)
    with pytest.raises(ApprovalNeeded) as needed:
        await broker.open(who="k2")
    await answer_resume(broker, str(needed.value.more["approval_id"]), "deny")
    with pytest.raises(PolicyDenied, match="approval_denied"):
        await broker.open(who="k2")


async def test_a_takeover_is_asked_as_such(broker: Hand) -> None:
    await broker.open(labels={"stepgrant.run.takeover": "deny"})
    with pytest.raises(LeaseHeld):
        await broker.open(who="k2")
    with pytest.raises(PolicyDenied):
        await broker.open(who="k2", takeover=True)
