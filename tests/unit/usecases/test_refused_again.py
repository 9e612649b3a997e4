"""A resume that is refused again and again: the record tells of it, and does not grow with each try."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from changing import replace
from fakes.hand import REGO, Hand
from stepgrant_broker.domain.errors import ApprovalNeeded, DuplicateRequest, InvalidProof, PolicyDenied
from stepgrant_broker.domain.writes import Query, Workload
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.usecases import resuming
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.open import OpenCall, open_run
from stepgrant_broker.usecases.quarantine import quarantine, release
from stepgrant_broker.usecases.resuming import AGAIN_MS, ENOUGH


@pytest.fixture(autouse=True)
def one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is equal, and since when, is the same for one as for ten."""
    monkeypatch.setattr(resuming, "ENOUGH", 1)


DENIED = {"stepgrant.run.resume": "deny", "stepgrant.run.takeover": "deny"}
ONCE = ["run_opened", "decision"]


async def lapsed(broker: Hand, **labels: str) -> str:
    """A run that nobody holds and nobody may resume."""
    run = str((await broker.open(labels=labels or DENIED))["run"])
    broker.clock.tick(31_000)
    return run


async def refused(broker: Hand, who: str, workload: Workload | None = None) -> str:
    """Try to resume; the id of the decision that says no."""
    with pytest.raises(PolicyDenied) as told:
        await broker.open(who=who, workload=workload)
    return str(told.value.more["decision_id"])


async def another(broker: Hand) -> Workload:
    """Another workload that is enrolled for the same agent."""
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    made = await enroll(broker.ports, "acme", None, Enrolment("other", ("agent",), (), jwk, "j3"))
    workload = await broker.store.workload(made["id"])
    assert workload is not None
    return workload


async def activate(broker: Hand, rego: str) -> None:
    """The next revision."""
    bundle = from_files({"stepgrant/main.rego": rego})
    revision = await next_revision(broker.ports, bundle.digest)
    await broker.engine.load(revision, bundle)
    await activate_policy(broker.ports, "acme", broker.operator, revision=revision, text=bundle.files)


async def test_a_refusal_that_repeats_itself_is_recorded_once_and_found_under_its_id(
    broker: Hand, tmp_path: Path
) -> None:
    run = await lapsed(broker)
    first = await refused(broker, "k2")
    kept = payloads(tmp_path)
    for number in range(3, 30):
        broker.clock.tick(1_000)
        assert await refused(broker, f"k{number}") == first
    assert await broker.entries(run) == ONCE
    assert payloads(tmp_path) == kept
    assert [row.data.count(first.encode()) for row in await broker.ports.reads.entries("acme", run)] == [0, 1]


def payloads(folder: Path) -> int:
    """How many values rest behind commitments."""
    with sqlite3.connect(folder / "store" / "stepgrant.db") as db:
        (count,) = db.execute("SELECT count(*) FROM payloads").fetchone()
    db.close()
    return int(count)


async def test_a_day_later_it_is_recorded_again(broker: Hand) -> None:
    run = await lapsed(broker)
    first = await refused(broker, "k2")
    broker.clock.tick(AGAIN_MS - 1)
    assert await refused(broker, "k3") == first
    assert await broker.entries(run) == ONCE
    broker.clock.tick(1)
    second = await refused(broker, "k4")
    assert await broker.entries(run) == [*ONCE, "decision"]
    assert second != first
    assert await refused(broker, "k5") == second


async def test_another_revision_or_reason_is_recorded(broker: Hand) -> None:
    run = await lapsed(broker)
    first = await refused(broker, "k2")
    await activate(broker, REGO + "\n# a remark\n")
    second = await refused(broker, "k3")
    assert second != first
    await activate(broker, REGO.replace("no_rule_matched", "never_again"))
    assert await refused(broker, "k4") not in {first, second}
    assert await broker.entries(run) == [*ONCE, "decision", "decision"]


async def test_each_subject_is_recorded_also_when_they_take_turns(broker: Hand) -> None:
    run, other = await lapsed(broker), await another(broker)
    own, theirs = await refused(broker, "k2"), await refused(broker, "k3", other)
    assert own != theirs
    for number in range(4, 9):
        assert await refused(broker, f"k{number}") == own
        assert await refused(broker, f"o{number}", other) == theirs
    assert await broker.entries(run) == [*ONCE, "decision"]


async def tried(broker: Hand, who: str, attested: dict[str, Any], **more: Any) -> str:  # noqa: ANN401 - members
    """Try to resume, as the same subject that was attested in another way; as `refused`."""
    values = {"version": None, "input_bytes": None, "labels": {}, "principal": None, "takeover": False, **more}
    call = OpenCall(**{"run_key": "job", "agent": "agent", **values})
    with pytest.raises(PolicyDenied) as told:
        await open_run(broker.ports, replace(broker.agent(who), **attested), call, broker.request())
    return str(told.value.more["decision_id"])


WAYS = ({"method": "oidc"}, {"trust_domain": "elsewhere"}, {"attributes": {"workload": "wkl_of_another_key"}})


@pytest.mark.parametrize("enough", [1, 2])
async def test_each_way_to_be_attested_is_recorded_for_the_same_subject(
    broker: Hand, monkeypatch: pytest.MonkeyPatch, enough: int
) -> None:
    monkeypatch.setattr(resuming, "ENOUGH", enough)
    run = await lapsed(broker)
    tries: list[list[str]] = [
        [await tried(broker, f"k{number}", way, version=f"v{number}") for way in ({}, *WAYS)] for number in range(2, 9)
    ]
    assert len({told for one in tries for told in one}) == 4 * enough
    assert tries[enough - 1 :] == [tries[enough - 1]] * (len(tries) - enough + 1)
    assert await broker.entries(run) == ["run_opened", *["decision"] * 4 * enough]


async def test_after_anything_else_happened_it_is_recorded_again(broker: Hand) -> None:
    run = await lapsed(broker)
    first = await refused(broker, "k2")
    await quarantine(broker.ports, broker.operator, "run", run)
    await release(broker.ports, broker.operator, "run", run)
    assert await refused(broker, "k3") != first
    assert await broker.entries(run) == [*ONCE, "run_quarantined", "run_released", "decision"]


async def test_a_question_that_stands_is_not_recorded_at_each_try(broker: Hand) -> None:
    run = await lapsed(broker, **{"stepgrant.run.resume": "ask", "stepgrant.run.takeover": "ask"})
    asked = set()
    for number in range(2, 9):
        with pytest.raises(ApprovalNeeded) as needed:
            await broker.open(who=f"k{number}")
        asked.add(needed.value.more["approval_id"])
    assert len(asked) == 1
    assert await broker.entries(run) == [*ONCE, "approval_requested"]
    broker.clock.tick(AGAIN_MS)
    with pytest.raises(ApprovalNeeded) as again:
        await broker.open(who="k9")
    assert again.value.more["approval_id"] not in asked
    assert await broker.entries(run) == [*ONCE, "approval_requested", "decision", "approval_requested"]


async def test_a_call_that_is_not_recorded_uses_up_its_proof_and_its_key_all_the_same(broker: Hand) -> None:
    run = await lapsed(broker)
    await refused(broker, "k2")
    caller, request = broker.agent("k3"), broker.request("one body", key="same-key")
    call = OpenCall("job", "agent", None, None, {}, None, takeover=False)
    with pytest.raises(PolicyDenied):
        await open_run(broker.ports, caller, call, request)
    with pytest.raises(InvalidProof, match="used before"):
        await open_run(broker.ports, caller, call, broker.request())
    with pytest.raises(DuplicateRequest, match="another body"):
        await open_run(broker.ports, broker.agent("k3"), call, broker.request("other body", key="same-key"))
    assert await broker.entries(run) == ONCE


async def test_the_first_few_are_all_recorded_and_count_as_denials(
    broker: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "ENOUGH", ENOUGH)
    run = await lapsed(broker)
    ids = [await refused(broker, f"k{number}") for number in range(2, 2 + ENOUGH + 5)]
    assert len(set(ids)) == ENOUGH
    assert set(ids[ENOUGH - 1 :]) == {ids[ENOUGH - 1]}
    assert await broker.entries(run) == ["run_opened", *["decision"] * ENOUGH]
    view = (await broker.store.load(Query("acme", run=run))).view
    assert view.run is not None
    assert view.run.history.denials == ENOUGH
