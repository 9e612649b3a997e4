"""What a person is shown is opened from the commitment that his answer must meet."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes.hand import Hand, allow, ask
from stepgrant import canonical
from stepgrant_broker.domain.errors import ApprovalNeeded, UnknownApproval
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.show_approval import show_approval


async def asks_to_go_on(broker: Hand, who: str, workload: Any = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """A resume or takeover that people are asked about, as they are shown it."""
    with pytest.raises(ApprovalNeeded) as needed:
        await broker.open(who=who, workload=workload, **options)
    return await show_approval(broker.ports, "acme", str(needed.value.more["approval_id"]))


async def test_who_asks_to_resume_is_who_the_answer_is_bound_to(broker: Hand) -> None:
    labels = {"stepgrant.run.resume": "ask", "stepgrant.run.takeover": "ask"}
    run = (await broker.open(labels=labels))["run"]
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    eve = await enroll(broker.ports, "acme", None, Enrolment("eve", ("agent",), (), jwk, "j3"))
    broker.clock.tick(31_000)

    shown = await asks_to_go_on(broker, "k2")
    other = await asks_to_go_on(broker, "k3", await broker.store.workload(eve["id"]))

    assert (shown["tool"], shown["resume"]) == ("stepgrant.run.resume", {"run": run, "subject": "workload:agent"})
    assert (other["tool"], other["resume"]) == ("stepgrant.run.takeover", {"run": run, "subject": "workload:eve"})
    for one in (shown, other):
        assert canonical.digest(one["bound"]) == one["digest"]
        assert canonical.digest(one["resume"]) == one["bound"]["digest"]
        assert one["action"] == {"tool": one["tool"], "resource": None, "args": None}


async def test_an_action_is_shown_with_issuer_and_parameters_as_they_are_bound(broker: Hand) -> None:
    run = (await broker.open())["run"]
    decision = ask() | {"grant": {**allow()["grant"], "issuer": "static", "params": {"secret": "bank-key", "n": [1.5]}}}
    asked = (await broker.begin(run, decision=decision, args={"amount": 7}))["approval_id"]

    shown = await show_approval(broker.ports, "acme", asked)

    assert shown["bound"] == {
        "tenant": "acme", "run": run, "step": "s1", "effect": "once", "issuer": "static",
        "params": {"secret": "bank-key", "n": [1.5]}, "digest": canonical.action_digest(*shown["action"].values()),
    }  # fmt: skip
    assert canonical.digest(shown["bound"]) == shown["digest"]
    assert (shown["action"]["args"], shown["resume"]) == ({"amount": 7}, None)


async def test_what_was_erased_is_not_made_up(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = (await broker.begin(run, decision=ask()))["approval_id"]
    await end(broker.ports, broker.agent(), run, 1, "failed", Result(None), broker.request())
    await erase_run(broker.ports, broker.operator, run)

    shown = await show_approval(broker.ports, "acme", asked)

    assert (shown["digest"], shown["bound"], shown["resume"]) == (None, None, None)
    assert shown["action"] == {"tool": "pay", "resource": None, "args": None}


async def test_where_the_binding_is_lost_the_action_is_what_its_step_still_has(broker: Hand, tmp_path: Path) -> None:
    """So it is, too, of questions that an older broker put: it kept no more than the digest."""
    run = (await broker.open())["run"]
    first = (await broker.begin(run, decision=ask(), args={"amount": 7}))["approval_id"]
    second = (await broker.begin(run, decision=ask(), args={"amount": 8}))["approval_id"]
    with closing(sqlite3.connect(tmp_path / "store" / "stepgrant.db")) as db, db:
        assert db.execute("DELETE FROM payloads WHERE field = 'approval.binding'").rowcount == 2

    void, shown = [await show_approval(broker.ports, "acme", one) for one in (first, second)]

    assert (void["status"], void["bound"], void["action"]["args"]) == ("void", None, None)
    assert (shown["status"], shown["bound"], shown["action"]["args"]) == ("pending", None, {"amount": 8})


async def test_another_tenants_question_does_not_exist(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = (await broker.begin(run, decision=ask()))["approval_id"]
    for tenant, name in (("globex", asked), ("acme", "apr_nope")):
        with pytest.raises(UnknownApproval):
            await show_approval(broker.ports, tenant, name)
