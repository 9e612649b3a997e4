"""Prepare, start, begin: one decision, one commit, and a credential only after it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fakes.clock import StandingClock
from fakes.hand import Hand, allow, ask, deciding, deny
from fakes.world import AUDIENCE, call
from stepgrant_broker.domain.errors import (
    ApprovalNeeded,
    FateUnknown,
    IssuerUnavailable,
    PolicyDenied,
    PolicyUnavailable,
    StepgrantFault,
    StepInDoubt,
    StoreUnavailable,
    UnknownStep,
)
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.enroll import Enrolment, enroll, unenroll
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.start import start


async def test_begin_commits_once_and_then_releases_the_credential(broker: Hand) -> None:
    run = (await broker.open())["run"]
    before = broker.store.commits
    answer = await broker.begin(run)
    assert broker.store.commits == before + 1
    assert (answer["outcome"], answer["credential"]["kind"]) == ("run", "jwt")
    assert await broker.entries(run) == ["run_opened", "step_prepared", "decision", "grant_issued"]


async def test_the_credential_is_minted_only_after_the_grant_is_durable(broker: Hand) -> None:
    run = (await broker.open())["run"]
    order: list[str] = []
    broker.failpoints.armed = {
        point: (lambda point=point: order.append(point))  # type: ignore[misc]
        for point in ("store.before_commit", "store.after_commit", "usecase.before_mint")
    }
    await broker.begin(run)
    assert order == ["store.before_commit", "store.after_commit", "usecase.before_mint"]


async def test_a_grant_that_cannot_be_recorded_is_not_released(broker: Hand) -> None:
    run = (await broker.open())["run"]

    def broken() -> None:
        raise OSError(28, "no space left")

    broker.failpoints.armed = {"store.before_apply": broken}
    with pytest.raises(StoreUnavailable):
        await broker.begin(run)
    broker.failpoints.armed = {}
    assert await broker.entries(run) == ["run_opened"]
    assert "usecase.before_mint" not in broker.failpoints.seen
    assert (await broker.begin(run))["outcome"] == "run"


async def test_a_commit_of_unknown_fate_is_not_run_again(broker: Hand) -> None:
    run = (await broker.open())["run"]

    def lost() -> None:
        raise OSError(5, "gone")

    broker.failpoints.armed = {"store.after_commit": lost}
    with pytest.raises(StepgrantFault) as told:
        await broker.begin(run)
    assert told.type is FateUnknown
    broker.failpoints.armed = {}
    assert (await broker.entries(run)).count("grant_issued") <= 1
    assert "usecase.before_mint" not in broker.failpoints.seen


async def test_a_lease_goes_by_the_clock_of_the_store(broker: Hand) -> None:
    """Of two brokers on one store the one with the wrong clock must not fence itself, or hold a run for ever."""
    run = (await broker.open())["run"]
    ahead = replace(broker, ports=replace(broker.ports, clock=StandingClock(broker.clock.now() + 3_600_000)))
    await ahead.begin(run)
    loaded = await broker.store.load(Query("acme", run=run))
    assert loaded.lease_until == loaded.now + broker.ports.limits.lease_ms


async def test_the_issuers_failure_is_recorded_and_leaves_nothing_counted(broker: Hand) -> None:
    run = (await broker.open())["run"]
    decision = {**allow(issuer="static", params={"secret": "missing"}), "meters": {"usd": 3}}
    with pytest.raises(IssuerUnavailable):
        await broker.begin(run, decision=decision)
    assert (await broker.entries(run))[-2:] == ["grant_issued", "grant_failed"]
    loaded = await broker.store.load(Query("acme", run=run, step="s1"))
    assert loaded.view.run is not None
    assert dict(loaded.view.run.history.meters) == {}
    assert (await broker.begin(run))["outcome"] == "run"


async def test_an_issuer_that_the_broker_does_not_have_grants_nothing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    with pytest.raises(IssuerUnavailable, match="nope"):
        await broker.begin(run, decision=allow(issuer="nope"))
    assert await broker.entries(run) == ["run_opened"]


async def test_an_audience_of_no_server_is_the_default(broker: Hand) -> None:
    run = (await broker.open())["run"]
    answer = await broker.begin(run, decision={"effect": "allow", "reasons": ["ok"]})
    assert answer["grant"]["audience"] == "urn:stepgrant:tool:pay"


async def test_denied_is_an_answer_recorded_without_a_grant(broker: Hand) -> None:
    run = (await broker.open())["run"]
    answer = await broker.begin(run, decision=deny("too_much"))
    assert (answer["outcome"], answer["reasons"]) == ("denied", ["too_much"])
    assert "credential" not in answer
    assert await broker.entries(run) == ["run_opened", "step_prepared", "decision"]


async def test_no_rule_is_a_denial(broker: Hand) -> None:
    run = (await broker.open())["run"]
    answer = await begin(broker.ports, broker.agent(), run, call(), broker.request())
    assert (answer["outcome"], answer["reasons"]) == ("denied", ["no_rule_matched"])


async def test_nonsense_from_policy_is_never_an_allow(broker: Hand) -> None:
    run = (await broker.open())["run"]
    with pytest.raises(PolicyUnavailable):
        await broker.begin(run, decision={"effect": "allow", "reasons": "yes"})
    assert await broker.entries(run) == ["run_opened"]


async def test_prepare_is_advice_and_start_decides_again(broker: Hand) -> None:
    run = (await broker.open())["run"]
    first = await prepare(broker.ports, broker.agent(), run, call(**deciding(allow())), broker.request())
    assert (first["outcome"], "grant" in first) == ("run", False)
    with pytest.raises(PolicyDenied) as denied:
        await start(broker.ports, broker.agent(), run, call(**deciding(deny())), broker.request())
    assert denied.value.more["reasons"] == ["no"]
    assert (await broker.entries(run)).count("grant_issued") == 0
    answer = await start(broker.ports, broker.agent(), run, call(**deciding(allow())), broker.request())
    assert answer["credential"]["kind"] == "jwt"


async def test_two_prepared_steps_cannot_share_one_budget(broker: Hand) -> None:
    """The state that decides is the state that the grant's commit compares."""
    run = (await broker.open())["run"]
    for step in ("a", "b"):
        await prepare(broker.ports, broker.agent(), run, call(step, **deciding(allow())), broker.request())
    spend = {**allow(), "meters": {"usd": 60}}
    await asyncio.gather(
        *(
            start(broker.ports, broker.agent(), run, call(step, **deciding(spend)), broker.request())
            for step in ("a", "b")
        )
    )
    loaded = await broker.store.load(Query("acme", run=run))
    assert loaded.view.run is not None
    assert dict(loaded.view.run.history.meters) == {"usd": 120_000_000}


async def test_start_of_a_step_nobody_prepared_is_unknown(broker: Hand) -> None:
    run = (await broker.open())["run"]
    with pytest.raises(UnknownStep):
        await start(broker.ports, broker.agent(), run, call(), broker.request())


async def test_start_says_that_people_must_answer_or_reconcile(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await prepare(broker.ports, broker.agent(), run, call(**deciding(ask())), broker.request())
    with pytest.raises(ApprovalNeeded) as needed:
        await start(broker.ports, broker.agent(), run, call(**deciding(ask())), broker.request())
    assert str(needed.value.more["approval_id"]).startswith("apr_")
    granted = await broker.begin(run, "b")
    await broker.redeem(granted["grant"]["jti"])
    with pytest.raises(StepInDoubt):
        await start(broker.ports, broker.agent(), run, call("b", **deciding(allow())), broker.request())


async def test_start_replays_what_is_completed(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run)
    await broker.complete(run)
    answer = await start(broker.ports, broker.agent(), run, call(**deciding(allow())), broker.request())
    assert (answer["outcome"], answer["result"]) == ("replay", "ok")


async def test_a_recorded_failure_is_replayed_with_its_words(broker: Hand) -> None:
    from stepgrant_broker.usecases.fail import fail  # noqa: PLC0415 - beside its one use

    run = (await broker.open())["run"]
    await broker.begin(run)
    failed = await fail(
        broker.ports, broker.agent(), run, "s1", 1, 1, status=FailStatus.FAILED, error="boom", request=broker.request()
    )
    assert failed == {"step": "s1", "attempt": 1, "state": "failed"}
    answer = await broker.begin(run)
    assert answer["failure"] == {"status": "failed", "error": "boom"}


async def test_an_approval_is_shown_to_policy_and_spent(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = await broker.begin(run, decision=ask())
    assert asked["outcome"] == "approval_required"
    digest = await shown(broker, run, asked["approval_id"])
    answer = await decide_approval(
        broker.ports, broker.approver(), asked["approval_id"], verdict="approve", digest=digest, note="fine",
        request=broker.request(),
    )  # fmt: skip
    assert answer["status"] == "approved"
    granted = await broker.begin(run, decision=ask())
    assert granted["grant"]["approval"] == asked["approval_id"]


async def shown(broker: Hand, run: str, approval_id: str) -> str:
    """The digest behind the approval's binding, as people are shown it."""
    loaded = await broker.store.load(Query("acme", approval=approval_id))
    binding_c = loaded.view.approvals[approval_id].binding_c
    payloads = await broker.ports.reads.payloads("acme", run, [binding_c])
    return payloads[binding_c].value().decode().strip('"')


async def test_an_allow_given_for_another_approval_is_decided_without_it(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = await broker.begin(run, decision=ask())
    digest = await shown(broker, run, asked["approval_id"])
    await decide_approval(
        broker.ports, broker.approver(), asked["approval_id"], verdict="approve", digest=digest, note=None,
        request=broker.request(),
    )  # fmt: skip
    before = len(broker.failpoints.seen)
    answer = await broker.begin(run, decision=allow(params={"role": "other"}))
    assert broker.failpoints.seen[before:].count("usecase.before_policy") == 2
    assert answer["grant"]["approval"] is None


async def test_another_revision_in_the_engine_than_the_active_one_grants_nothing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.engine.load("9:other", from_files({"stepgrant/main.rego": REPLACED}))
    with pytest.raises(PolicyUnavailable, match="9:other"):
        await broker.begin(run)
    assert await broker.entries(run) == ["run_opened"]


REPLACED = """package stepgrant

default decision := {"effect": "deny", "reasons": ["none"]}

decision := {"effect": "allow", "reasons": ["all"]} if input.tenant == "acme"
"""


async def test_the_grant_is_for_the_audience_policy_named(broker: Hand) -> None:
    run = (await broker.open())["run"]
    assert (await broker.begin(run))["grant"]["audience"] == AUDIENCE


async def test_what_nobody_can_redeem_is_not_called_unused(broker: Hand) -> None:
    """Redemption is asked for where a server is enrolled that can redeem; else that nobody did would prove nothing."""
    run, elsewhere = (await broker.open())["run"], allow(audience="https://elsewhere.example")

    async def asked(step: str, decision: dict[str, Any]) -> str:
        return str((await broker.begin(run, step, decision))["grant"]["redeem"])

    assert await asked("a", elsewhere) == "optional"
    assert await asked("b", allow()) == "required"
    assert await asked("c", allow(audience="https://elsewhere.example", redeem="required")) == "required", "policy says"
    new = Enrolment("elsewhere", (), ("https://elsewhere.example",), {"kty": "EC", "crv": "P-256", "x": "x"}, "j9")
    server = await enroll(broker.ports, "acme", None, new)
    assert await asked("d", elsewhere) == "required"
    await unenroll(broker.ports, "acme", None, server["id"])
    assert await asked("e", elsewhere) == "optional"


async def test_a_once_tool_without_a_server_is_in_doubt_after_a_crash(broker: Hand) -> None:
    """It may have acted: a tool in the agent's own process needs nobody's consent. Nothing is given back."""
    run, plain = (await broker.open())["run"], {"effect": "allow", "reasons": ["ok"], "meters": {"usd": 5}}
    assert (await broker.begin(run, decision=plain))["grant"]["audience"] == "urn:stepgrant:tool:pay"
    broker.clock.tick(31_000)
    assert (await broker.open(who="k2"))["epoch"] == 2
    again = await broker.begin(run, decision=plain, who="k2", epoch=2)
    assert again["outcome"] == "in_doubt"
    loaded = await broker.store.load(Query("acme", run=run, step="s1"))
    assert loaded.view.run is not None
    assert dict(loaded.view.run.history.meters) == {"usd": 5_000_000}
