"""Approvals: binding, one use, expiry, quorum, groups, denial, asking again."""

import pytest

from changing import replace
from fakes.world import World, agent, allow, ask_people, call, person
from stepgrant_broker.domain import approvals
from stepgrant_broker.domain.calls import Ready, Refusal, Waiting
from stepgrant_broker.domain.decisions import Effect, GrantSpec, RedeemMode, RequireApproval
from stepgrant_broker.domain.errors import (
    ApprovalExpired,
    DigestMismatch,
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    UnknownApproval,
)
from stepgrant_broker.domain.state import ApprovalStatus, FailStatus


@pytest.fixture
def world() -> World:
    world = World()
    world.open()
    return world


def asked(world: World, decision: RequireApproval | None = None) -> None:
    assert isinstance(world.begin(call(), decision or ask_people()), Waiting)


def test_an_answer_lets_exactly_this_action_start(world: World) -> None:
    asked(world)
    assert world.answer().status is ApprovalStatus.APPROVED
    outcome = world.begin(call(), ask_people())
    assert isinstance(outcome, Ready)
    assert world.grant().approval == world.approval().id
    assert (world.approval().status, world.approval().consumed_by) == (ApprovalStatus.CONSUMED, world.grant().jti)


def test_asking_while_the_question_is_open_asks_no_second_question(world: World) -> None:
    asked(world)
    first = world.approval().id
    asked(world)
    assert list(world.view.approvals) == [first]


def test_an_answer_is_used_once(world: World) -> None:
    asked(world)
    world.answer()
    world.begin(call(effect=Effect.ONCE), ask_people())
    world.redeem()
    world.fail(FailStatus.NOT_EXECUTED)
    outcome = world.begin(call(), ask_people())
    assert isinstance(outcome, Waiting)
    assert outcome.approval.why_again == "already_used"


def test_an_answer_comes_back_only_if_its_grant_is_provably_unused(world: World) -> None:
    asked(world)
    world.answer()
    world.begin(call(), ask_people())
    first = world.grant().jti
    assert isinstance(world.begin(call(), ask_people()), Ready)
    assert world.grant().jti != first
    assert world.approval().consumed_by == world.grant().jti


@pytest.mark.parametrize(
    ("change", "decision"),
    [
        ({"args": {"amount": 2}}, ask_people()),
        ({"resource": "order/2"}, ask_people()),
        ({}, replace(ask_people(), grant=GrantSpec(issuer="static", effect=Effect.ONCE))),
        ({}, replace(ask_people(), grant=GrantSpec(effect=Effect.ONCE, params={"role": "admin"}))),
    ],
)
def test_an_answer_is_bound_to_action_issuer_and_parameters(
    world: World, change: dict[str, object], decision: RequireApproval
) -> None:
    asked(world)
    world.answer()
    old = world.approval().id
    outcome = world.begin(call(**change), decision)  # type: ignore[arg-type]
    assert isinstance(outcome, Waiting)
    assert outcome.approval.id != old
    assert world.view.grants == {}
    assert world.view.approvals[old].status is ApprovalStatus.VOID


def test_an_answer_for_one_step_does_not_serve_another(world: World) -> None:
    asked(world)
    world.answer()
    assert isinstance(world.begin(call("s2"), ask_people()), Waiting)
    assert world.view.grants == {}


def test_an_answer_expires_from_the_later_of_answer_and_first_resume(world: World) -> None:
    asked(world, ask_people(valid_for_s=60))
    world.park()
    world.answer()
    world.now += 1_000_000
    world.resume(agent("k2", now=world.now))
    who = agent("k2", now=world.now)
    world.now += 59_000
    world.lease_until = world.now + 1000
    ready = world.begin(call(epoch=2), ask_people(valid_for_s=60), who=who)
    assert isinstance(ready, Ready)
    assert ready.grant is not None
    assert ready.grant.exp == world.now + 1000


def test_a_later_resume_does_not_make_an_answer_young_again(world: World) -> None:
    asked(world, ask_people(valid_for_s=60))
    world.park()
    world.answer()
    world.resume(agent("k2", now=world.now))
    world.now += 60_000
    world.lapse()
    world.resume(agent("k3", now=world.now))
    outcome = world.begin(call(epoch=3), ask_people(valid_for_s=60), who=agent("k3", now=world.now))
    assert isinstance(outcome, Waiting)
    assert outcome.approval.why_again == "answer_expired"


@pytest.mark.parametrize(
    ("stricter", "why"),
    [(ask_people(quorum=2), "policy_stricter"), (ask_people(groups=("finance",)), "policy_stricter")],
)
def test_a_stricter_policy_of_now_asks_again(world: World, stricter: RequireApproval, why: str) -> None:
    asked(world)
    world.answer()
    outcome = world.begin(call(), stricter)
    assert isinstance(outcome, Waiting)
    assert outcome.approval.why_again == why
    assert world.view.grants == {}


def test_a_milder_policy_of_now_takes_the_answer(world: World) -> None:
    asked(world, ask_people(quorum=2))
    world.answer()
    world.answer(who=person("bob"))
    assert isinstance(world.begin(call(), ask_people(quorum=1)), Ready)


def test_a_changed_question_is_put_anew(world: World) -> None:
    asked(world)
    outcome = world.begin(call(), ask_people(quorum=2))
    assert isinstance(outcome, Waiting)
    assert outcome.approval.why_again == "policy_changed"


def test_an_unanswered_question_is_put_again_after_its_time(world: World) -> None:
    asked(world, ask_people(answer_within_s=10))
    world.now += 10_000
    outcome = world.begin(call(), ask_people(answer_within_s=10))
    assert isinstance(outcome, Waiting)
    assert outcome.approval.why_again == "not_answered_in_time"


def test_a_denial_stands_for_its_binding(world: World) -> None:
    asked(world)
    assert world.answer("deny").status is ApprovalStatus.DENIED
    outcome = world.begin(call(), ask_people())
    assert isinstance(outcome, Refusal)
    assert outcome.reasons == ("approval_denied",)
    assert world.view.grants == {}


def test_a_denial_stands_where_policy_would_not_ask_any_more(world: World) -> None:
    asked(world)
    world.answer("deny")
    outcome = world.begin(call(), allow())
    assert isinstance(outcome, Refusal)
    assert (outcome.reasons, world.view.grants) == (("approval_denied",), {})
    assert isinstance(world.begin(call(), allow(issuer="static")), Ready), "of this binding, and no other"


def test_one_denial_outweighs_a_quorum(world: World) -> None:
    asked(world, ask_people(quorum=2))
    world.answer()
    assert world.answer("deny", person("bob")).status is ApprovalStatus.DENIED


def test_quorum_counts_distinct_people(world: World) -> None:
    asked(world, ask_people(quorum=2))
    assert world.answer().status is ApprovalStatus.PENDING
    with pytest.raises(DuplicateRequest, match="answered already"):
        world.answer()
    assert world.answer(who=person("bob")).status is ApprovalStatus.APPROVED


def test_the_principal_never_approves() -> None:
    world = World()
    world.open(principal="ann")
    asked(world)
    with pytest.raises(Forbidden, match="principal"):
        world.answer()
    assert world.approval().answers == ()
    assert world.answer(who=person("bob")).status is ApprovalStatus.APPROVED


def test_who_may_answer(world: World) -> None:
    asked(world, ask_people(groups=("finance",)))
    with pytest.raises(Forbidden, match="only an approver"):
        world.answer(who=person(roles=("operator",), groups=("finance",)))
    with pytest.raises(Forbidden, match="finance"):
        world.answer(who=person(groups=("it",)))
    assert world.answer(who=person(groups=("finance",))).status is ApprovalStatus.APPROVED


def test_the_shown_digest_must_be_echoed(world: World) -> None:
    asked(world)
    with pytest.raises(DigestMismatch):
        world.answer(digest="sha-256:" + "A" * 43)
    with pytest.raises(InvalidRequest):
        world.answer("maybe")
    assert world.approval().status is ApprovalStatus.PENDING


def test_an_answer_comes_too_late(world: World) -> None:
    asked(world, ask_people(answer_within_s=10))
    world.now += 10_000
    with pytest.raises(ApprovalExpired):
        world.answer()


def test_a_void_or_settled_question_takes_no_answer(world: World) -> None:
    asked(world)
    first = world.approval()
    world.answer()
    with pytest.raises(DuplicateRequest, match="approved"):
        world.answer(who=person("bob"))
    world.begin(call(), ask_people(quorum=2))
    journal = world.journal()

    with pytest.raises(ApprovalExpired):
        approvals.decide(
            journal,
            world.view.approvals[first.id],
            person("eve"),
            verdict="approve",
            digest=world.shown(first),
            note="n",
        )


def test_an_ended_run_has_no_questions(world: World) -> None:
    asked(world)
    world.end("cancelled")
    with pytest.raises(UnknownApproval):
        world.answer()


def test_a_policy_that_allows_because_it_saw_the_answer_spends_it(world: World) -> None:
    asked(world)
    world.answer()
    assert isinstance(world.begin(call(), allow()), Ready)
    assert world.approval().status is ApprovalStatus.CONSUMED


def test_an_allow_for_something_else_does_not_spend_the_answer(world: World) -> None:
    asked(world)
    world.answer()
    assert isinstance(world.begin(call(), allow(issuer="static")), Ready)
    assert world.approval().status is ApprovalStatus.APPROVED


def test_a_note_is_kept_only_behind_its_commitment(world: World) -> None:
    asked(world)
    journal = world.journal()

    approval = world.approval()
    approvals.decide(journal, approval, person(), verdict="approve", digest=world.shown(approval), note="because of Bo")
    assert b"Bo" not in journal.entries[-1].data
    assert "note_c" in journal.entries[-1].fields["body"]


def test_an_optional_grant_keeps_its_approval_spent(world: World) -> None:
    decision = replace(ask_people(), grant=GrantSpec(effect=Effect.ONCE, redeem=RedeemMode.OPTIONAL))
    asked(world, decision)
    world.answer()
    world.begin(call(), decision)
    world.park()
    assert world.approval().status is ApprovalStatus.CONSUMED


@pytest.mark.parametrize("status", [ApprovalStatus.VOID, ApprovalStatus.EXPIRED])
def test_a_question_that_is_over_is_put_again(world: World, status: ApprovalStatus) -> None:
    asked(world)
    (known,) = world.view.approvals.values()
    world.view = replace(world.view, approvals={known.id: replace(known, status=status)})
    outcome = world.begin(call(), ask_people())
    assert isinstance(outcome, Waiting)
    assert outcome.approval.id != known.id
    assert outcome.approval.why_again == "action_changed"
