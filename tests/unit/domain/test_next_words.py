"""What comes of policy's word on the next action of a parked run: its terms, and open questions and answers."""

from __future__ import annotations

import pytest

from changing import replace
from fakes.lost_calls import crash, done, lost
from fakes.world import agent, allow, ask_people, call, person
from stepgrant_broker.domain.calls import Suspected
from stepgrant_broker.domain.decisions import Allow, Decision, Deny, Effect, GrantSpec
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.next_actions import Fate, NextAction, fates, weighed
from stepgrant_broker.domain.replaying import Remade
from unit.domain.parked import Desk


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.world.open()
    return made


def _suspected(desk: Desk) -> NextAction:
    done(desk.world, "old")
    crash(desk.world)
    assert isinstance(desk.begin(lost("new", 2)), Suspected)
    desk.world.park()
    action = desk.action("new")
    assert action.document["step"]["equal_to"] == "old"
    return action


@pytest.mark.parametrize(
    ("said", "effect", "terms"),
    [
        (allow(duplicate="ask"), "allow", {"duplicate": "ask"}),
        (allow(duplicate="replay"), "allow", {"duplicate": "replay"}),
        (Deny(("no",)), "deny", {}),
    ],
)
def test_what_may_be_a_duplicate_is_no_grant_before_somebody_said_so(
    desk: Desk, said: Decision, effect: str, terms: dict[str, str]
) -> None:
    assert weighed(_suspected(desk), said) == Remade(effect, said.reasons, terms)


def test_a_duplicate_that_policy_runs_anyway_has_the_terms_of_a_grant(desk: Desk) -> None:
    assert weighed(_suspected(desk), allow(duplicate="run")).terms["issuer"] == "jwt"


def test_a_word_is_closed_as_at_a_call(desk: Desk) -> None:
    desk.begin(call(effect=Effect.READ), act=False)
    desk.world.park()
    action = desk.action()
    assert weighed(action, Allow(("ok",), GrantSpec())) == Remade("deny", ("effect_not_confirmed",), {})
    assert weighed(action, allow(Effect.READ, ttl_s=30)).terms["lifetime_ms"] == 30_000


def test_what_a_person_said_of_the_resume_decides_it(desk: Desk) -> None:
    desk.begin(call(), act=False)
    desk.world.park()
    said = ask_people(groups=("it",), quorum=1)
    shown = desk.ask_for_the_resume(said)
    asked = weighed(desk.action(RESUME_STEP, shown), said)
    assert (asked.effect, asked.terms["groups"], asked.terms["binding"]) == ("require_approval", ["it"], shown)
    desk.world.answer("deny", person(groups=("it",)), shown)
    assert weighed(desk.action(RESUME_STEP, shown), said) == Remade("deny", ("approval_denied",), {})
    assert weighed(desk.action(RESUME_STEP, shown), allow()) == Remade("deny", ("approval_denied",), {}), "it stands"


# -------------------------------------------------------------------------- what becomes of questions and answers

PEOPLE = ask_people(valid_for_s=60, answer_within_s=600)
OTHERS = replace(PEOPLE, approval=replace(PEOPLE.approval, groups=("it",)))
TWO = replace(PEOPLE, approval=replace(PEOPLE.approval, quorum=2))
ELSEWHERE = replace(PEOPLE, grant=replace(PEOPLE.grant, issuer="static"))
SHORTER = replace(PEOPLE, grant=replace(PEOPLE.grant, ttl_s=5))


@pytest.mark.parametrize(
    ("said", "status", "fate", "why"),
    [
        (PEOPLE, "pending", "kept", None),
        (PEOPLE, "approved", "kept", None),
        (TWO, "pending", "void", "policy_changed"),
        (OTHERS, "pending", "void", "policy_changed"),
        (OTHERS, "approved", "void", "policy_stricter"),
        (ELSEWHERE, "approved", "void", "action_changed"),
        (SHORTER, "approved", "kept", None),
        (allow(), "pending", "not_needed", None),
        (Deny(("no",)), "approved", "refused", None),
    ],
)
@pytest.mark.parametrize(("step", "other"), [("s1", RESUME_STEP), (RESUME_STEP, "s1")])
def test_what_policy_would_make_of_a_question(
    desk: Desk, step: str, other: str, said: Decision, status: str, fate: str, why: str | None
) -> None:
    desk.begin(call(), PEOPLE if step == "s1" else allow(), act=False)
    desk.world.park()
    shown = desk.world.shown(desk.world.approval()) if step == "s1" else desk.ask_for_the_resume(PEOPLE)
    if status == "approved":
        desk.world.answer(digest=shown)
    assert list(fates(desk.action(step, shown), said)) == [Fate(desk.world.approval().id, status, fate, why)]
    assert list(fates(desk.action(other, shown), said)) == [], "of this action alone"


def test_a_word_that_no_policy_may_say_refuses_the_question(desk: Desk) -> None:
    """Closed first: an effect that is not confirmed is a denial, whoever would be asked."""
    desk.begin(call(effect=Effect.READ), ask_people(Effect.READ), act=False)
    desk.world.park()
    assert [one.fate for one in fates(desk.action(), ask_people(Effect.READ))] == ["kept"]
    assert [one.fate for one in fates(desk.action(), ask_people(Effect.ONCE))] == ["refused"]


def test_of_a_question_whose_binding_was_erased_nothing_is_known(desk: Desk) -> None:
    desk.begin(call(), PEOPLE)
    desk.world.park()
    action = replace(desk.action(), bindings={})
    assert list(fates(action, PEOPLE)) == [Fate(desk.world.approval().id, "pending", "unknown")]


@pytest.mark.parametrize("how", ["not answered in time", "answered long ago", "denied"])
def test_what_stands_no_more_has_no_fate(desk: Desk, how: str) -> None:
    world = desk.world
    desk.begin(call(), PEOPLE)
    world.park()
    if how != "not answered in time":
        world.answer("deny" if how == "denied" else "approve")
        world.resume(agent("k2", now=world.now))
        world.park()
    world.now += 600_000 - 1
    assert [one.status for one in fates(desk.action(), PEOPLE)] == (["pending"] if how.startswith("not") else [])
    world.now += 1
    assert list(fates(desk.action(), PEOPLE)) == []
