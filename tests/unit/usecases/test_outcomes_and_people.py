"""Fail, suspend, reconcile, redeem, revoke; enrolment, people, secrets, policy."""

import pytest

from fakes.hand import Hand, allow, ask
from fakes.world import World, ask_people, call, person
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    AlreadyRedeemed,
    DigestMismatch,
    Forbidden,
    InvalidRequest,
    PriorCredentialLive,
    Quarantined,
    UnknownApproval,
    UnknownGrant,
)
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.quarantine import quarantine
from stepgrant_broker.usecases.reconcile import reconcile, reconcile_by_person, refuse_unfit_person
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.set_secret import set_secret
from stepgrant_broker.usecases.suspend import suspend


async def doubt(broker: Hand, decision: dict[str, object] | None = None) -> str:
    """A run whose step s1 is in doubt, held under epoch 2 by k2."""
    run = str((await broker.open())["run"])
    granted = await broker.begin(run, decision=decision)
    await broker.redeem(granted["grant"]["jti"])
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    return run


async def test_an_unknown_outcome_is_told_as_doubt(broker: Hand) -> None:
    run = (await broker.open())["run"]
    granted = await broker.begin(run)
    await broker.redeem(granted["grant"]["jti"])
    answer = await fail(
        broker.ports, broker.agent(), run, "s1", 1, 1, status=FailStatus.UNKNOWN, error="x", request=broker.request()
    )
    assert (answer["state"], answer["in_doubt"]["why"]) == ("in_doubt", "tool_raised")


async def test_suspend_revokes(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run)
    assert (await suspend(broker.ports, broker.agent(), run, "s1", 1, 1, broker.request()))["state"] == "prepared"
    assert (await broker.entries(run))[-2:] == ["step_suspended", "grant_revoked"]


async def test_a_hook_reconciles_with_a_look_of_its_own(broker: Hand) -> None:
    run = await doubt(broker)
    look = "s1~reconcile~1"
    await broker.begin(run, look, allow(effect="read"), who="k2", epoch=2, effect=Effect.READ, tool="pay.reconcile")
    await broker.complete(run, look, epoch=2, who="k2")
    said = Verdict(1, "done", Result(b'{"id":7}'), "found it", look)
    answer = await reconcile(broker.ports, broker.agent("k2"), run, "s1", 2, said, broker.request())
    assert answer["state"] == "completed"
    replayed = await broker.begin(run, who="k2", epoch=2)
    assert replayed["result"] == {"id": 7}


async def test_a_hook_of_an_issuer_without_revocation_is_not_believed(broker: Hand) -> None:
    await set_secret(broker.ports, "acme", broker.operator, name="key", value="s3cret", hosts=("api.example",))
    run = (await broker.open())["run"]
    await broker.begin(run, decision=allow(issuer="static", params={"secret": "key"}))
    broker.clock.tick(100_000)
    await broker.open(who="k2")
    look = "s1~reconcile~1"
    await broker.begin(run, look, allow(effect="read"), who="k2", epoch=2, effect=Effect.READ, tool="pay.reconcile")
    await broker.complete(run, look, epoch=2, who="k2")
    said = Verdict(1, "not_done", Result(None), None, look)
    with pytest.raises(PriorCredentialLive):
        await reconcile(broker.ports, broker.agent("k2"), run, "s1", 2, said, broker.request())


async def test_an_operator_reconciles_where_policy_named_no_group(broker: Hand) -> None:
    run = await doubt(broker)
    said = Verdict(1, "not_done", Result(None), "I looked")
    with pytest.raises(Forbidden):
        await reconcile_by_person(broker.ports, broker.approver(), run, "s1", said, broker.request())
    request = broker.request({}, "same")
    answer = await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, request)
    assert answer["state"] == "failed"
    assert await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, request) == answer
    with pytest.raises(InvalidRequest, match="hook"):
        await reconcile_by_person(
            broker.ports, broker.operator, run, "s1", Verdict(1, "done", Result(None), None, "x"), broker.request()
        )


async def test_a_doubt_is_settled_while_the_kill_switch_is_thrown(broker: Hand) -> None:
    """It is why people look. The run itself stays stopped until somebody releases it."""
    run = await doubt(broker)
    await quarantine(broker.ports, broker.operator, "run", run)
    said = Verdict(1, "done", Result(b'"ok"'), "I looked")
    answer = await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, broker.request())
    assert answer["state"] == "completed"
    broker.clock.tick(31_000)
    with pytest.raises(Quarantined):
        await broker.open(who="k3")


async def test_people_of_the_approving_groups_reconcile_a_step_that_needed_them(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = await broker.begin(run, decision=ask(groups=["finance"]))
    approval = (await broker.ports.reads.approvals("acme", page(), run=run)).rows[0]
    payloads = await broker.ports.reads.payloads("acme", run, [approval.binding_c])
    ann = person("ann", groups=("finance",))
    await decide_approval(
        broker.ports, ann, asked["approval_id"], verdict="approve",
        digest=payloads[approval.binding_c].value().decode().strip('"'), note=None, request=broker.request(),
    )  # fmt: skip
    granted = await broker.begin(run, decision=ask(groups=["finance"]))
    await broker.redeem(granted["grant"]["jti"])
    await broker.begin(run)
    said = Verdict(1, "unknown", Result(None))
    with pytest.raises(Forbidden, match="finance"):
        await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, broker.request())
    answer = await reconcile_by_person(broker.ports, ann, run, "s1", said, broker.request())
    assert answer["state"] == "in_doubt"


def page() -> Page:
    """The first page."""
    return Page()


async def test_redeem_spends_the_one_use_and_repeats_its_answer(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    first = await broker.redeem(jti)
    assert first["act_before"] == broker.clock.now() + 10_000
    assert {**(await broker.redeem(jti)), "now": 0} == {**first, "now": 0}
    with pytest.raises(AlreadyRedeemed):
        await broker.redeem(jti, rid="r2")
    with pytest.raises(UnknownGrant):
        await broker.redeem("grn_nope")
    assert (await broker.entries(run)).count("grant_redeemed") == 1


async def test_an_operator_revokes_a_grant(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    with pytest.raises(Forbidden):
        await revoke_grant(broker.ports, broker.approver(), jti, broker.request())
    with pytest.raises(UnknownGrant):
        await revoke_grant(broker.ports, broker.operator, "grn_nope", broker.request())
    request = broker.request({}, "same")
    answer = await revoke_grant(broker.ports, broker.operator, jti, request)
    assert (answer["status"], answer["cause"]) == ("revoked", "operator")
    assert await revoke_grant(broker.ports, broker.operator, jti, request) == answer
    assert (await revoke_grant(broker.ports, broker.operator, jti, broker.request()))["status"] == "revoked"


async def test_an_approval_that_does_not_exist_or_a_long_note(broker: Hand) -> None:
    more = {"verdict": "approve", "digest": "d", "request": broker.request()}
    with pytest.raises(UnknownApproval):
        await decide_approval(broker.ports, broker.approver(), "apr_nope", note=None, **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as bad:
        await decide_approval(broker.ports, broker.approver(), "apr_nope", note="x" * 2001, **more)  # type: ignore[arg-type]
    assert bad.value.field == "note"


async def test_an_answer_is_repeated_by_its_key(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = (await broker.begin(run, decision=ask()))["approval_id"]
    approval = (await broker.ports.reads.approvals("acme", page(), run=run)).rows[0]
    payloads = await broker.ports.reads.payloads("acme", run, [approval.binding_c])
    digest, request = payloads[approval.binding_c].value().decode().strip('"'), broker.request({}, "same")
    answers = [
        await decide_approval(
            broker.ports, broker.approver(), asked, verdict="approve", digest=digest, note=None, request=request
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert (await broker.entries(run)).count("approval_decided") == 1


async def test_the_call_that_was_granted_is_the_one_that_is_redeemed(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    with pytest.raises(DigestMismatch):
        await broker.redeem(jti, digest=call(args={"amount": 2}).digest)
    assert (await broker.entries(run)).count("grant_redeemed") == 0


def test_who_could_approve_another_step_settles_that_one_alone() -> None:
    world = World()
    world.open()
    world.begin(call("s1"), ask_people(groups=("finance",)))
    world.begin(call("s2"), ask_people(groups=("it",)))
    journal = world.journal()
    refuse_unfit_person(journal, person(groups=("finance",)), "s1")
    with pytest.raises(Forbidden, match="people of finance"):
        refuse_unfit_person(journal, person(groups=("it",)), "s1")
    with pytest.raises(Forbidden, match="people of finance"):
        refuse_unfit_person(journal, person(roles=("operator",)), "s1")
    refuse_unfit_person(journal, person(groups=("it",)), "s1", "s2")
    with pytest.raises(Forbidden, match="only an operator"):
        refuse_unfit_person(journal, person(groups=("it",)), "s3")
    refuse_unfit_person(journal, person(roles=("operator",)), "s3")
