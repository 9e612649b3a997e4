"""Preparing, starting and replaying a step; drift; revisions; prior credentials; lost replies."""

import pytest

from changing import replace
from fakes.world import JWT, STATIC, World, agent, allow, ask_people, call
from stepgrant_broker.domain.calls import Doubtful, Ready, Refusal, Replayed, Waiting
from stepgrant_broker.domain.deciding import IssuerFacts
from stepgrant_broker.domain.decisions import Allow, Deny, Effect, GrantSpec, RedeemMode
from stepgrant_broker.domain.errors import BudgetExhausted, InvalidRequest, PriorCredentialLive, StepDrift
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import ApprovalStatus, FailStatus, GrantStatus, IdSource, StepState


@pytest.fixture
def world() -> World:
    world = World()
    world.open()
    return world


def test_begin_records_step_decision_and_grant_together(world: World) -> None:
    outcome = world.begin(call())
    assert isinstance(outcome, Ready)
    assert outcome.grant is not None
    assert [e.type for e in world.entries] == ["run_opened", "step_prepared", "decision", "grant_issued"]
    assert outcome.grant.redeem is RedeemMode.REQUIRED
    assert outcome.grant.exp == world.now + 60_000
    assert world.step().state is StepState.STARTED


def test_prepare_mints_nothing_and_may_be_repeated(world: World) -> None:
    for _ in range(3):
        assert isinstance(world.begin(call(), act=False), Ready)
    assert world.view.grants == {}
    assert world.step().state is StepState.PREPARED
    assert sum(e.type == "step_prepared" for e in world.entries) == 1


def test_prepare_of_a_running_step_takes_nothing_back(world: World) -> None:
    world.begin(call())
    world.begin(call(), act=False)
    assert world.grant().status is GrantStatus.ISSUED
    assert world.step().state is StepState.STARTED
    world.redeem()
    assert isinstance(world.begin(call(), act=False), Doubtful)
    assert world.step().state is StepState.STARTED


def test_a_completed_step_is_never_done_again(world: World) -> None:
    world.begin(call())
    world.complete()
    grants = len(world.view.grants)
    outcome = world.begin(call())
    assert isinstance(outcome, Replayed)
    assert len(world.view.grants) == grants
    assert world.grant().status is GrantStatus.REVOKED


def test_a_replay_is_an_entry_once_in_an_epoch(world: World) -> None:
    world.begin(call())
    world.complete()
    world.lapse()
    world.resume(agent("k2", now=world.now))
    for _ in range(2):
        world.begin(call(epoch=2), who=agent("k2", now=world.now))
    assert sum(e.type == "step_replayed" for e in world.entries) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"args": {"amount": 2}}, "action"),
        ({"resource": "order/2"}, "action"),
        ({"resource": None}, "action"),
        ({"tool": "refund"}, "action"),
        ({"effect": Effect.READ}, "effect"),
        ({"idempotency_key": "other"}, "idempotency_key"),
    ],
)
def test_a_started_step_never_accepts_another_action(world: World, change: dict[str, object], field: str) -> None:
    world.begin(call())
    before = len(world.entries)
    with pytest.raises(StepDrift) as drift:
        world.begin(call(**change))  # type: ignore[arg-type]
    assert drift.value.field == field
    assert len(world.entries) == before


def test_effect_and_idempotency_key_are_fixed_at_the_first_prepare(world: World) -> None:
    world.begin(call(effect=Effect.ONCE, idempotency_key="mine"), act=False)
    with pytest.raises(StepDrift, match="effect was fixed as once"):
        world.begin(call(effect=Effect.IDEMPOTENT))
    with pytest.raises(StepDrift, match="idempotency key was fixed"):
        world.begin(call(idempotency_key="other"))
    assert isinstance(world.begin(call(idempotency_key="mine")), Ready)
    assert world.step().idempotency_key == "mine"


@pytest.mark.parametrize("source", [IdSource.CALL_ID, IdSource.EXPLICIT])
def test_other_arguments_before_a_start_are_a_new_revision(world: World, source: IdSource) -> None:
    world.begin(call(id_source=source), ask_people())
    old = world.approval()
    outcome = world.begin(call(id_source=source, args={"amount": 2}))
    assert isinstance(outcome, Ready)
    assert world.step().revision == 2
    assert world.view.approvals[old.id].status is ApprovalStatus.VOID


def test_other_arguments_under_an_ordinal_are_drift(world: World) -> None:
    world.begin(call(id_source=IdSource.ORDINAL), act=False)
    with pytest.raises(StepDrift, match="step_id="):
        world.begin(call(id_source=IdSource.ORDINAL, args={"amount": 2}))


@pytest.mark.parametrize("key", ["", "a/b", "x" * 201, "~resume", "ü"])
def test_a_bad_step_key_is_refused(world: World, key: str) -> None:
    with pytest.raises(InvalidRequest) as bad:
        world.begin(call(key))
    assert bad.value.field == "step"


def test_a_run_has_a_bounded_number_of_steps(world: World) -> None:
    world.limits = Limits(max_steps=1)
    world.begin(call("a"))
    with pytest.raises(BudgetExhausted):
        world.begin(call("b"))


def test_a_looser_effect_needs_the_consent_of_policy(world: World) -> None:
    for decision in (Allow(("ok",), GrantSpec()), allow(Effect.ONCE), allow(Effect.IDEMPOTENT)):
        outcome = world.begin(call(effect=Effect.READ), decision)
        assert isinstance(outcome, Refusal)
        assert outcome.reasons == ("effect_not_confirmed",)
    assert isinstance(world.begin(call(effect=Effect.READ), allow(Effect.READ)), Ready)


def test_a_denied_step_is_decided_again(world: World) -> None:
    outcome = world.begin(call(), Deny(("no",)))
    assert isinstance(outcome, Refusal)
    assert outcome.reasons == ("no",)
    assert world.step().state is StepState.DENIED
    assert world.view.grants == {}
    assert isinstance(world.begin(call()), Ready)
    assert world.step().attempt == 1


def test_arguments_may_be_withheld_only_where_policy_says_so_and_never_with_people(world: World) -> None:
    what = call(preimage=None)
    spec = GrantSpec(effect=Effect.ONCE, digest_only=True)
    refused = [
        outcome.reasons
        for decision in (allow(), ask_people(), replace(ask_people(), grant=spec))
        if isinstance(outcome := world.begin(what, decision), Refusal)
    ]
    assert refused == [("arguments_required",), ("arguments_required",), ("approval_needs_arguments",)]
    assert world.view.approvals == {}
    assert isinstance(world.begin(what, Allow(("ok",), spec)), Ready)


def test_an_unused_grant_of_the_same_epoch_is_revoked_before_another(world: World) -> None:
    world.begin(call())
    first = world.grant()
    world.begin(call())
    assert world.view.grants[first.jti].status is GrantStatus.REVOKED
    assert [g.status for g in world.view.grants.values()].count(GrantStatus.ISSUED) == 1
    assert world.step().attempt == 1


def test_a_used_once_grant_leads_to_doubt_in_the_same_epoch_too(world: World) -> None:
    world.begin(call())
    world.redeem()
    assert isinstance(world.begin(call()), Doubtful)
    assert world.step().state is StepState.IN_DOUBT
    assert world.grant().status is GrantStatus.REVOKED


def test_the_holders_own_late_result_settles_its_doubt(world: World) -> None:
    world.begin(call())
    world.redeem()
    world.begin(call())
    assert world.complete().state is StepState.COMPLETED


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.IDEMPOTENT])
def test_an_effectful_start_waits_for_the_prior_credential(world: World, effect: Effect) -> None:
    world.begin(call("a", effect=effect))
    world.redeem("a")
    act_before = world.grant("a").act_before
    assert act_before is not None
    world.lease_until = world.now + 1
    world.lapse()
    world.resume(agent("k2", now=world.now))
    before = len(world.entries)
    other = call("b", epoch=2, effect=effect, resource="order/2")  # on the same one, the doubt would block it
    with pytest.raises(PriorCredentialLive) as live:
        world.begin(other, who=agent("k2", now=world.now))
    assert live.value.retry_after_ms == act_before + world.limits.leeway_ms - world.now
    assert len(world.entries) == before
    assert isinstance(world.begin(call("c", epoch=2, effect=Effect.READ), who=agent("k2", now=world.now)), Ready)
    world.now = act_before + world.limits.leeway_ms
    world.lease_until = world.now + 1000
    assert isinstance(world.begin(other, who=agent("k2", now=world.now)), Ready)


def test_a_static_key_keeps_the_next_start_waiting_until_its_grant_expires(world: World) -> None:
    world.begin(call("a"), issuer=STATIC)
    exp = world.grant("a").exp
    assert world.grant("a").redeem is RedeemMode.OPTIONAL
    world.lapse()
    world.resume(agent("k2", now=world.now))
    with pytest.raises(PriorCredentialLive):
        world.begin(call("b", epoch=2, resource="order/2"), who=agent("k2", now=world.now))
    world.now = exp + world.limits.leeway_ms
    world.lease_until = world.now + 1000
    assert isinstance(world.begin(call("b", epoch=2, resource="order/2"), who=agent("k2", now=world.now)), Ready)


def test_a_lost_reply_mints_again_for_the_same_attempt_and_says_whom_it_inherits(world: World) -> None:
    world.begin(call(), request="same")
    first = world.grant()
    world.begin(call(), request="same")
    body = world.entries[-1].fields["body"]
    assert (body["inherits"], world.step().attempt) == (first.jti, 1)
    assert world.view.grants[first.jti].status is GrantStatus.REVOKED


def test_not_received_is_believed_only_once_the_credential_is_dead(world: World) -> None:
    optional = allow(redeem=RedeemMode.OPTIONAL)
    world.begin(call(), optional, request="same")
    first = world.grant()
    with pytest.raises(PriorCredentialLive) as live:
        world.begin(call(not_received=True), optional, request="same")
    assert live.value.retry_after_ms == first.exp + world.limits.leeway_ms - world.now
    assert world.view.grants[first.jti].status is GrantStatus.ISSUED
    world.now = first.exp + world.limits.leeway_ms
    world.lease_until = world.now + 1000
    assert isinstance(world.begin(call(not_received=True), optional, request="same"), Ready)
    assert world.step().attempt == 1


@pytest.mark.parametrize("redeem", [RedeemMode.REQUIRED, RedeemMode.OPTIONAL])
def test_not_received_is_not_believed_of_what_a_server_redeemed(world: World, redeem: RedeemMode) -> None:
    """Else one approval, and one unit of a budget, would be worth any number of effects."""
    world.begin(call(), allow(redeem=redeem), request="same")
    used = world.redeem()
    world.now = used.exp + world.limits.leeway_ms
    world.lease_until = world.now + 1000
    assert isinstance(world.begin(call(not_received=True), request="same"), Doubtful)
    assert list(world.view.grants) == [used.jti]


def test_not_received_of_another_request_is_no_statement(world: World) -> None:
    world.begin(call(), allow(redeem=RedeemMode.OPTIONAL), request="one")
    assert isinstance(world.begin(call(not_received=True), request="two"), Doubtful)


def test_not_received_of_a_static_key_is_never_proven(world: World) -> None:
    world.begin(call(), issuer=STATIC, request="same")
    with pytest.raises(PriorCredentialLive) as live:
        world.begin(call(not_received=True), issuer=STATIC, request="same")
    assert live.value.retry_after_ms is None


@pytest.mark.parametrize("effect", [Effect.READ, Effect.IDEMPOTENT])
@pytest.mark.parametrize("issuer", [JWT, STATIC])
def test_a_lost_reply_of_what_may_run_again_waits_for_nothing(
    world: World, effect: Effect, issuer: IssuerFacts
) -> None:
    decision = Allow(("ok",), GrantSpec(effect=effect, redeem=RedeemMode.OPTIONAL))
    world.begin(call(effect=effect), decision, issuer=issuer, request="same")
    again = world.begin(call(effect=effect, not_received=True), decision, issuer=issuer, request="same")
    assert isinstance(again, Ready)
    assert world.step().attempt == 2


def test_a_waiting_step_is_decided_again(world: World) -> None:
    assert isinstance(world.begin(call(), ask_people()), Waiting)
    assert world.step().state is StepState.AWAITING_APPROVAL
    assert isinstance(world.begin(call(), allow()), Ready)


@pytest.mark.parametrize("status", FailStatus)
def test_what_the_earlier_attempt_came_to_is_a_plain_text_as_it_comes_back_from_a_store(
    world: World, status: FailStatus
) -> None:
    read = allow(effect=Effect.READ)
    world.begin(call(effect=Effect.READ, retry_failed=True), read)
    world.fail(status)
    world.begin(call(effect=Effect.READ, retry_failed=True), read)
    step = world.step()
    assert (step.attempt, step.previous_outcome) == (2, status.value)
    # A driver that looks at exact types (PostgreSQL's) has no column for an enum.
    assert type(step.previous_outcome) is str
