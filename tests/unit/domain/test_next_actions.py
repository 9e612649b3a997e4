"""What a parked run would ask policy next: which steps, and on which input. It is only looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from changing import replace
from fakes.world import World, agent, allow, ask_people, call
from stepgrant import canonical
from stepgrant_broker.domain import policy_input, steps
from stepgrant_broker.domain.calls import Ask, StepCall
from stepgrant_broker.domain.decisions import Deny, Effect, RedeemMode
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.next_actions import NextAction, Unasked, next_actions
from stepgrant_broker.domain.outcomes import Result, record
from stepgrant_broker.domain.replaying import Shown
from stepgrant_broker.domain.runs import RESUME_TOOL
from stepgrant_broker.domain.state import FailStatus, IdSource, RunState, StepState
from unit.domain.parked import Desk

LONG = 400_000
"""Milliseconds after which nothing lives that was granted before."""


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.world.open()
    return made


# ------------------------------------------------------------------------------------------------------ which are asked


def _is_held(_: World) -> None:
    """Its holder asks for itself."""


def _quarantined(world: World) -> None:
    assert world.view.run is not None
    world.view = replace(world.view, run=replace(world.view.run, state=RunState.QUARANTINED))


@pytest.mark.parametrize("so", [_is_held, World.end, _quarantined])
def test_only_a_parked_run_asks(desk: Desk, so: Callable[[World], None]) -> None:
    desk.begin(call(effect=Effect.READ))
    so(desk.world)
    assert desk.next() == []
    assert list(next_actions(World().view, desk.newest, {}, desk.world.now)) == []


def test_the_resume_comes_first_and_then_each_step_that_waits_in_its_order(desk: Desk) -> None:
    world = desk.world
    desk.begin(call("z_first"), act=False)
    desk.begin(call("done"))
    world.complete("done")
    desk.begin(call("failed"))
    world.redeem("failed")
    world.fail(FailStatus.FAILED, "failed")
    desk.begin(call("doubtful", tool="wire"))
    world.redeem("doubtful", digest=call(tool="wire").digest)
    desk.begin(call("a_last"), ask_people())
    journal = world.journal()
    plan, _ = record(
        journal, "plan", name="plan", digest_preimage=b"{}", id_source=IdSource.EXPLICIT, result=Result(b"1")
    )
    world.keep(journal)
    other = replace(plan, key="other_name", recorded=False, state=StepState.ADOPTED, same_as="doubtful")
    world.view = replace(world.view, steps={**world.view.steps, other.key: other})
    world.park()
    assert [(one.step, one.tool, getattr(one, "why", "asked")) for one in desk.next()] == [
        (RESUME_STEP, RESUME_TOOL, "asked"),
        ("z_first", "pay", "asked"),
        ("doubtful", "wire", "in_doubt"),
        ("a_last", "pay", "asked"),
    ]


def test_what_was_erased_is_not_made_up(desk: Desk) -> None:
    desk.world.begin(call("erased"), act=False)
    desk.world.park()
    assert desk.next() == [Unasked(desk.run, RESUME_STEP, RESUME_TOOL, "input_erased")]
    desk.world.resume(agent("k2"))
    desk.begin(call("kept", epoch=2), act=False)
    desk.world.park()
    resume, erased, kept = desk.next()
    assert erased == Unasked(desk.run, "erased", "pay", "input_erased")
    assert (resume.step, kept.step) == (RESUME_STEP, "kept")
    assert isinstance(kept, NextAction)


def test_an_entry_without_an_input_takes_none_away(desk: Desk) -> None:
    desk.begin(call(), act=False)
    known = desk.newest.any
    desk.newest.read(Shown(desk.world.entries[0]))
    assert desk.newest.any is known
    assert desk.newest.inputs == {"s1": known}


# ---------------------------------------------------------------------------------------------------- on which input

ENDS: dict[str, Callable[[Desk, StepCall], object]] = {
    "prepared": lambda desk, what: desk.begin(what, act=False),
    "denied": lambda desk, what: desk.begin(what, Deny(("no",))),
    "waits for people": lambda desk, what: desk.begin(what, ask_people(what.effect)),
    "unused": lambda desk, what: desk.begin(what, allow(what.effect, redeem=RedeemMode.REQUIRED)),
    "suspended unused": lambda desk, what: (
        desk.begin(what, allow(what.effect, redeem=RedeemMode.REQUIRED)), desk.world.suspend()
    ),
    "not executed": lambda desk, what: (desk.begin(what), desk.world.fail(FailStatus.NOT_EXECUTED)),
}  # fmt: skip
AGAIN: dict[str, Callable[[Desk, StepCall], object]] = {
    "perhaps used": lambda desk, what: desk.begin(what, allow(what.effect, redeem=RedeemMode.OPTIONAL)),
    "suspended": lambda desk, what: (
        desk.begin(what, allow(what.effect, redeem=RedeemMode.OPTIONAL)), desk.world.suspend()
    ),
    "failed, and may be tried again": lambda desk, what: (desk.begin(what), desk.world.fail(FailStatus.FAILED)),
}  # fmt: skip
WAYS = [(effect, end) for effect in Effect for end in (ENDS if effect is Effect.ONCE else ENDS | AGAIN).items()]


@pytest.mark.parametrize(("effect", "end"), WAYS, ids=[f"{effect}, {end[0]}" for effect, end in WAYS])
def test_what_is_foretold_is_what_the_resumed_run_asks(
    desk: Desk, effect: Effect, end: tuple[str, Callable[[Desk, StepCall], object]]
) -> None:
    """To the byte: the same workload comes back at that moment, and begins the step with the same call."""
    world = desk.world
    what = call(effect=effect, retry_failed=True, context={"why": "refund"})
    end[1](desk, what)
    world.park()
    world.now += LONG
    entries = len(world.entries)
    action = desk.action()
    assert (len(world.entries), action.journal.entries) == (entries, [])

    who, what = agent("k2", now=world.now), replace(what, epoch=2)
    world.resume(who)
    ask = steps.consider(world.journal(), what, world.limits, act=True, request="r")
    assert isinstance(ask, Ask)
    asked = policy_input.for_step(world.journal(), who, what, ask, None, None)
    assert canonical.dumps(dict(action.document)) == asked
    assert action.document["run"]["parked_seconds"] == LONG // 1000


def test_the_resume_is_asked_as_a_resume_by_the_same_workload_is(desk: Desk) -> None:
    world = desk.world
    desk.begin(call(context={"why": "refund"}), act=False)
    world.park()
    world.now += LONG
    action = desk.action(RESUME_STEP)
    who = agent(now=world.now)
    args = {"takeover": False, "same_subject": True, "lease_lapsed": True, "parked_seconds": 400, "agent": "agent"}
    assert action.resumes
    assert canonical.dumps(dict(action.document)) == policy_input.for_run(
        who, tool=RESUME_TOOL, step=RESUME_STEP, agent="agent", version=None, run=desk.run, run_key=None,
        args=args,  # type: ignore[arg-type] # JSON
        labels={}, principal=None, parked_ms=LONG, approval=None, now=world.now,
    )  # fmt: skip


def test_an_answer_is_as_young_as_the_first_resume_after_it_makes_it(desk: Desk) -> None:
    world = desk.world
    desk.begin(call(), ask_people(valid_for_s=60))
    world.park()
    world.answer()
    world.now += LONG
    shown = desk.action().document["approval"]
    assert (shown["id"], shown["expires_at"]) == (world.approval().id, world.now // 1000 + 60)
    assert world.approval().resumed_at is None, "it is only looked at"
    world.resume(agent("k2", now=world.now))
    world.park()
    world.now += 60_000
    assert desk.action().document["approval"] is None


def test_a_clock_that_went_back_makes_no_negative_pause(desk: Desk) -> None:
    desk.begin(call(), act=False)
    desk.world.park()
    desk.world.now -= 1000
    assert desk.action(RESUME_STEP).document["action"]["args"]["parked_seconds"] == 0
