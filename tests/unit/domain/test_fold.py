"""What one entry may and may not change of the rest of its run."""

from __future__ import annotations

import pytest

from fakes.world import LOGIN, World, ask_people, call
from stepgrant_broker.domain.calls import Waiting
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import GrantRevoked, IssuerRefused
from stepgrant_broker.domain.leasing import record_lease
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.state import ApprovalStatus, GrantStatus, StepState


@pytest.fixture
def world() -> World:
    made = World()
    made.open()
    return made


def test_nothing_that_is_said_of_a_grant_afterwards_opens_a_completed_step(world: World) -> None:
    """Not even that it was never used: completed work is not redone."""
    world.begin(call())
    world.complete()
    before = world.step()
    journal = world.journal()
    journal.add_of(world.grant(), EntryType.GRANT_REVOKED, body={"unused": True, "confirmed": True}, cause="late")
    world.keep(journal)
    assert world.step() == before
    assert world.step().state is StepState.COMPLETED
    assert world.view.run is not None
    assert world.view.run.history.in_flight == 0


def test_other_arguments_void_what_people_said_of_this_step_alone(world: World) -> None:
    for key in ("s1", "s2"):
        assert isinstance(world.begin(call(key), ask_people()), Waiting)
    first, second = sorted(world.view.approvals)
    assert isinstance(world.begin(call("s1", args={"amount": 2}), ask_people()), Waiting)
    known = world.view.approvals
    assert (known[first].status, known[second].status) == (ApprovalStatus.VOID, ApprovalStatus.PENDING)
    assert known[second].step == "s2"


def test_a_decision_says_which_issuer_the_caller_asked_for(world: World) -> None:
    world.begin(call("s1", issuer="db"))
    world.begin(call("s2", resource="order/2"))
    bodies = [entry.fields["body"] for entry in world.entries if entry.type is EntryType.DECISION]
    assert [body.get("requested") for body in bodies] == ["db", None]


# ------------------------------------------------------------------------------------------------------------- leases


def test_the_lease_of_an_intent_that_was_taken_back_is_not_recorded(world: World) -> None:
    world.begin(call(), issuer=LOGIN)
    journal = world.journal()
    revoke(journal, world.grant(), "quarantined")
    world.keep(journal)
    before = world.grant()
    journal = world.journal()
    with pytest.raises(GrantRevoked) as refused:
        record_lease(journal, before.jti, lease="lease", expires_at=before.exp)
    assert refused.value.more == {"cause": "quarantined"}
    with pytest.raises(GrantRevoked):
        record_lease(journal, "grn_nobody", lease="lease", expires_at=before.exp)
    assert (journal.entries, world.grant()) == ([], before)
    assert (before.status, before.lease_c) == (GrantStatus.REVOKED, None)


def test_a_lease_is_recorded_once_and_never_longer_than_its_grant(world: World) -> None:
    world.begin(call(), issuer=LOGIN)
    exp = world.grant().exp
    grant = world.lease(world.grant().jti)
    assert (grant.status, grant.exp) == (GrantStatus.ISSUED, exp)
    with pytest.raises(GrantRevoked):
        record_lease(world.journal(), grant.jti, lease="another", expires_at=exp)


def test_a_credential_that_came_when_its_time_was_over_is_refused(world: World) -> None:
    world.begin(call(), issuer=LOGIN)
    journal = world.journal()
    with pytest.raises(IssuerRefused, match="time was over"):
        record_lease(journal, world.grant().jti, lease="lease", expires_at=world.now)
    assert journal.entries == []
    assert record_lease(journal, world.grant().jti, lease="lease", expires_at=world.now + 1).exp == world.now + 1
