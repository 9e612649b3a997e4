"""Changing the policy: checked, recorded, then in force; and whatever fails, the last good one decides."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import ArmedFailpoints
from fakes.wired import REGO, Made, says, until
from stepgrant import canonical
from stepgrant_broker.domain.errors import PolicyUnavailable, StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.wiring import Broker, bundle_of
from stepgrant_broker.wiring.bootstrap import ensure_tenant
from stepgrant_broker.wiring.policy import ActivePolicy

QUESTION = canonical.dumps({"action": {"tool": "x"}})


async def test_before_the_first_activation_nothing_is_decided() -> None:
    with pytest.raises(PolicyUnavailable):
        await ActivePolicy(lambda: EmbeddedEngine(decision_ids=lambda: "dec_1")).evaluate(QUESTION)


async def test_a_new_policy_is_recorded_for_every_tenant_and_decides(broker: Broker) -> None:
    await ensure_tenant(broker, "acme")
    revision = await broker.activate(bundle_of(says("second")))
    assert revision.startswith("2:sha-256:")
    answer = await broker.policy.evaluate(QUESTION)
    assert answer.revision == revision
    assert b"second" in (answer.raw or b"")
    for tenant in ("default", "acme"):
        loaded = (await broker.ports.store.load(Query(tenant))).tenant
        assert (loaded.policy_revision, loaded.policy_counter) == (revision, 2)


async def test_the_same_policy_again_changes_nothing(broker: Broker) -> None:
    first = await broker.activate(bundle_of(says("same")))
    length = len(await broker.ports.reads.entries("default", None))
    assert await broker.activate(bundle_of(says("same"))) == first
    assert len(await broker.ports.reads.entries("default", None)) == length


async def test_a_broken_policy_keeps_the_last_good_one(broker: Broker) -> None:
    before = broker.policy.revision
    with pytest.raises(PolicyInvalid):
        await broker.activate(bundle_of({"stepgrant/main.rego": "package stepgrant\n\ndecision := {"}))
    assert broker.policy.revision == before
    assert (await broker.policy.evaluate(QUESTION)).revision == before
    assert (await broker.ports.store.load(Query("default"))).tenant.policy_revision == before


async def test_what_cannot_be_recorded_does_not_decide(broker: Broker, failpoints: ArmedFailpoints) -> None:
    before = broker.policy.revision

    def full() -> None:
        raise StoreUnavailable("the disk is full")

    failpoints.armed["usecase.before_commit"] = full
    with pytest.raises(StoreUnavailable):
        await broker.activate(bundle_of(says("never")))
    failpoints.armed.clear()
    assert (await broker.policy.evaluate(QUESTION)).revision == before
    assert (await broker.ports.store.load(Query("default"))).tenant.policy_revision == before


async def test_what_was_recorded_after_all_decides(broker: Broker, failpoints: ArmedFailpoints) -> None:
    """The commit was made and its reply lost: the entry stands, so the engine must follow it."""

    def lost() -> None:
        raise StoreUnavailable("the reply was lost")

    failpoints.armed["usecase.after_commit"] = lost
    revision = await broker.activate(bundle_of(says("recorded")))
    failpoints.armed.clear()
    assert (await broker.ports.store.load(Query("default"))).tenant.policy_revision == revision
    assert (await broker.policy.evaluate(QUESTION)).revision == revision


async def test_it_is_recorded_before_it_decides(broker: Broker, failpoints: ArmedFailpoints) -> None:
    before, seen = broker.policy.revision, []
    failpoints.armed["usecase.before_commit"] = lambda: seen.append(broker.policy.revision)
    await broker.activate(bundle_of(says("later")))
    assert seen == [before]


async def test_calls_go_on_while_the_policy_changes(broker: Broker) -> None:
    stop = asyncio.Event()
    answers: list[str] = []

    async def ask() -> None:
        while not stop.is_set():
            answers.append((await broker.policy.evaluate(QUESTION)).revision)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    revisions = [await broker.activate(bundle_of(says(f"p{number}"))) for number in range(3)]
    stop.set()
    await asyncio.gather(*asking)
    assert len(answers) > 4
    assert answers[-1] in revisions


async def test_a_saved_edit_is_activated_and_a_broken_one_is_told(
    made: Made, tmp_path: Path, events: list[MutableMapping[str, Any]]
) -> None:
    folder = tmp_path / "policy" / "stepgrant"
    folder.mkdir(parents=True)
    rules = folder / "main.rego"
    rules.write_text(REGO.replace("WORD", "first"))
    async with made(policy_dir=tmp_path / "policy", watch_policy=True) as broker:
        first = broker.policy.revision
        rules.write_text("package stepgrant\n\ndecision := {")
        await until(lambda: any(event["event"] == "policy_broken" for event in events))
        (told,) = [event for event in events if event["event"] == "policy_broken"]
        assert (told["log_level"], told["stays_active"], broker.policy.revision) == ("error", first, first)
        assert "stepgrant/main.rego" in told["findings"][0]
        rules.write_text(REGO.replace("WORD", "third"))
        await until(lambda: broker.policy.revision != first)
        assert b"third" in ((await broker.policy.evaluate(QUESTION)).raw or b"")


async def test_a_saved_edit_that_could_not_be_recorded_is_tried_again(
    made: Made, tmp_path: Path, failpoints: ArmedFailpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepgrant_broker.wiring.watching.RETRY_S", 0.01)
    folder = tmp_path / "policy" / "stepgrant"
    folder.mkdir(parents=True)
    (folder / "main.rego").write_text(REGO.replace("WORD", "first"))
    tried = 0

    def full() -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise StoreUnavailable("the disk is full")

    async with made(policy_dir=tmp_path / "policy", watch_policy=True) as broker:
        first = broker.policy.revision
        failpoints.armed["usecase.before_commit"] = full
        (folder / "main.rego").write_text(REGO.replace("WORD", "second"))
        await until(lambda: broker.policy.revision != first)
        assert tried == 3
        assert (await broker.ports.store.load(Query("default"))).tenant.policy_revision == broker.policy.revision
