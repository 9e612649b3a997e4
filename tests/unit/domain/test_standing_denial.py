"""A denial stands for its binding in this run (`protocol.md` §4), whatever else was asked about the same action."""

from fakes.world import World, ask_people, call, person
from stepgrant_broker.domain import approvals
from stepgrant_broker.domain.calls import Refusal, Waiting
from stepgrant_broker.domain.journal import By
from stepgrant_broker.domain.state import ApprovalStatus


def denied_first() -> World:
    """Asked for one yes, then for two: somebody denies the first question while the second is open."""
    world = World()
    world.open()
    first = world.begin(call(), ask_people(quorum=1))
    second = world.begin(call(), ask_people(quorum=2))
    assert isinstance(first, Waiting)
    assert isinstance(second, Waiting)
    assert first.approval.id != second.approval.id
    journal = world.journal(By("person", "ann"))
    approvals.decide(
        journal, first.approval, person("ann"), verdict="deny", digest=world.shown(first.approval), note=None
    )
    world.keep(journal)
    return world


def test_it_stands_while_a_later_question_is_open() -> None:
    world = denied_first()
    settled = world.begin(call(), ask_people(quorum=2))
    assert isinstance(settled, Refusal)
    assert settled.reasons == ("approval_denied",)


def test_it_stands_after_a_later_question_was_answered_with_yes() -> None:
    world = denied_first()
    world.answer("approve", person("bob"))
    world.answer("approve", person("cleo"))
    assert world.approval().status is ApprovalStatus.APPROVED
    settled = world.begin(call(), ask_people(quorum=2))
    assert isinstance(settled, Refusal)
    assert settled.reasons == ("approval_denied",)
    assert world.view.grants == {}
