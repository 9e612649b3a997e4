"""A run under random acts, crashes and clocks.

No double grant, no two holders, completed never redone, epochs only rise, and folding the entries gives the tables.
"""

import hashlib

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.world import JWT, LOGIN, World, agent, allow, ask_people, call, person
from stepgrant import canonical
from stepgrant_broker.domain import fold
from stepgrant_broker.domain.calls import StepCall
from stepgrant_broker.domain.deciding import IssuerFacts
from stepgrant_broker.domain.decisions import Allow, Decision, Deny, Effect, GrantSpec, RedeemMode
from stepgrant_broker.domain.entries import GENESIS, Entry, EntryType
from stepgrant_broker.domain.errors import StaleEpoch, StepgrantFault
from stepgrant_broker.domain.grants import due_at, is_open, needs_confirmation, provably_unused
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import ApprovalStatus, FailStatus, Grant, GrantStatus, RunState, StepState, View

STEPS = {"a": Effect.READ, "b": Effect.IDEMPOTENT, "c": Effect.ONCE, "d": Effect.ONCE}
keys = st.sampled_from(sorted(STEPS))


def decisions(effect: Effect) -> list[Decision]:
    """Decisions that policy may give for this effect."""
    spec = GrantSpec(effect=effect)
    return [
        allow(effect),
        Allow(("ok",), spec, ("pii",), {"usd": 7}),
        Allow(("ok",), GrantSpec(effect=effect, redeem=RedeemMode.OPTIONAL), (), {"usd": 3}),
        Deny(("no",)),
        ask_people(effect),
    ]


def reread(entry: Entry) -> Entry:
    """The entry as an auditor reads it back from its bytes alone."""
    members = canonical.loads(entry.data)
    assert isinstance(members, dict)
    digest = hashlib.sha256(entry.data).digest()
    return Entry(
        entry.tenant, entry.run, entry.seq, entry.ts, EntryType(str(members["type"])), entry.step,
        digest, canonical.b64u(digest), entry.data, members,
    )  # fmt: skip


def plain(view: View) -> dict[str, object]:
    """A view as values that compare by content."""
    return {name: getattr(view, name) for name in View.__struct_fields__}


class RunMachine(RuleBasedStateMachine):
    """Random acts on one run; refusals are fine, broken promises are not."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(limits=Limits(lease_ms=5_000))
        self.process = 0
        self.done: dict[str, tuple[str | None, int]] = {}
        self.epochs: list[int] = []
        self.used_once: dict[str, int] = {}

    @initialize()
    def open(self) -> None:
        self.process = 1
        self.world.open(agent("k1"))

    @staticmethod
    def never_left(grant: Grant) -> bool:
        """No tool can have used it: also a login whose lease was never recorded, whatever became of it."""
        return provably_unused(grant) or (grant.handle_c is not None and grant.lease_c is None)

    def me(self) -> str:
        return f"k{self.process}"

    def try_(self, do: object, /, *args: object, **more: object) -> object:
        """Do it, or be refused by name; a refusal leaves nothing behind."""
        before = len(self.world.entries), self.world.view
        try:
            return do(*args, **more)  # type: ignore[operator]
        except StepgrantFault:
            assert (len(self.world.entries), self.world.view) == before
            return None

    def what(self, key: str) -> StepCall:
        return call(key, epoch=self.world.epoch, effect=STEPS[key])

    @rule(key=keys, choice=st.integers(0, 4), act=st.booleans(), issuer=st.sampled_from([JWT, JWT, LOGIN]))
    def begin(
        self,
        key: str,
        choice: int,
        act: bool,  # noqa: FBT001 - drawn by Hypothesis
        issuer: IssuerFacts,
    ) -> None:
        who = agent(self.me(), now=self.world.now)
        grants = len(self.world.view.grants)
        was_done = key in self.done
        self.try_(self.world.begin, self.what(key), decisions(STEPS[key])[choice], who=who, act=act, issuer=issuer)
        if was_done:
            assert len(self.world.view.grants) == grants

    @rule(key=keys)
    def redeem(self, key: str) -> None:
        assume(key in self.world.view.steps and self.world.step(key).grant)
        self.try_(self.world.redeem, key, digest=call(key).digest, rid=f"r{len(self.world.entries)}")

    @rule(key=keys)
    def complete(self, key: str) -> None:
        assume(key in self.world.view.steps)
        try:
            require_holder(self.world.loaded(), agent(self.me()), self.world.epoch)
        except StepgrantFault:
            return
        self.try_(self.world.complete, key)

    @rule(key=keys, status=st.sampled_from(list(FailStatus)))
    def fail(self, key: str, status: FailStatus) -> None:
        assume(key in self.world.view.steps)
        assume(self.world.state is RunState.OPEN)
        self.try_(self.world.fail, status, key)

    @rule(key=keys)
    def suspend(self, key: str) -> None:
        assume(key in self.world.view.steps)
        assume(self.world.state is RunState.OPEN)
        self.try_(self.world.suspend, key)

    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        """A broker comes back with what it minted, however late."""
        outside = [g.jti for g in self.world.view.grants.values() if g.handle_c is not None]
        assume(outside)
        grant = self.world.view.grants[data.draw(st.sampled_from(outside))]
        leased = self.try_(self.world.lease, grant.jti)
        assert (leased is None) or (grant.status is GrantStatus.INTENT and grant.epoch == self.world.epoch)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        """An issuer confirms a death, or confirms it again."""
        outside = [g.jti for g in self.world.view.grants.values() if g.handle_c is not None]
        assume(outside)
        grant = self.world.view.grants[data.draw(st.sampled_from(outside))]
        erased = self.world.die(grant.jti)
        assert (erased is not None) is needs_confirmation(grant)

    @rule(ms=st.integers(0, 40_000))
    def wait(self, ms: int) -> None:
        self.world.now += ms

    @rule(takeover=st.booleans())
    def resume(self, takeover: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        self.process += 1
        zombie = f"k{self.process - 1}"
        if self.try_(self._resume, takeover) is None:
            self.process -= 1
            return
        with pytest.raises(StaleEpoch):
            require_holder(self.world.loaded(), agent(zombie), self.world.epoch - 1)

    def _resume(self, takeover: bool) -> bool:  # noqa: FBT001 - as `resume`
        self.world.resume(agent(self.me(), now=self.world.now), takeover=takeover)
        return True

    @precondition(lambda self: self.world.state is RunState.OPEN)
    @rule()
    def park(self) -> None:
        self.world.park()

    @rule(verdict=st.sampled_from(["approve", "approve", "deny"]))
    def answer(self, verdict: str) -> None:
        assume(self.world.view.approvals)
        self.try_(self.world.answer, verdict, person(f"p{len(self.world.entries)}"))

    @invariant()
    def at_most_one_live_grant_for_each_step(self) -> None:
        for key in self.world.view.steps:
            live = [g for g in self.world.view.grants.values() if g.step == key and g.status is GrantStatus.ISSUED]
            assert len(live) <= 1

    @invariant()
    def nothing_outside_is_released_without_a_lease(self) -> None:
        for grant in self.world.view.grants.values():
            if grant.handle_c is not None and grant.status is GrantStatus.ISSUED:
                assert grant.lease_c is not None

    @invariant()
    def an_effectful_grant_comes_only_after_the_confirmed_death_of_older_ones_outside(self) -> None:
        effectful = [grant for grant in self.world.view.grants.values() if grant.effect.effectful]
        for old in effectful:
            if old.handle_c is None:
                continue
            for new in effectful:
                if new.epoch > old.epoch:
                    assert old.confirmed_at is not None
                    assert old.confirmed_at <= new.issued_at

    @invariant()
    def what_is_open_outside_is_due_for_the_sweeper(self) -> None:
        for grant in self.world.view.grants.values():
            if grant.handle_c is not None:
                assert (due_at(grant) is not None) is is_open(grant)

    @invariant()
    def live_grants_belong_to_the_holder(self) -> None:
        run = self.world.view.run
        for grant in self.world.view.grants.values():
            if run is not None and grant.status is GrantStatus.ISSUED:
                assert (grant.epoch, grant.jkt) == (run.epoch, run.jkt)
                assert run.state is RunState.OPEN

    @invariant()
    def completed_is_for_ever(self) -> None:
        for key, step in self.world.view.steps.items():
            if key in self.done:
                assert (step.result_c, step.attempt) == self.done[key]
                assert step.state is StepState.COMPLETED
            elif step.state is StepState.COMPLETED:
                self.done[key] = (step.result_c, step.attempt)

    @invariant()
    def a_once_step_is_used_at_most_once_without_a_word_that_it_did_not_happen(self) -> None:
        for key, effect in STEPS.items():
            used = [
                grant
                for grant in self.world.view.grants.values()
                if grant.step == key and effect is Effect.ONCE and not self.never_left(grant)
            ]
            attempts = [grant.attempt for grant in used]
            assert len(attempts) == len(set(attempts))

    @invariant()
    def epochs_only_rise(self) -> None:
        if self.world.view.run is None:
            return
        self.epochs.append(self.world.epoch)
        assert self.epochs == sorted(self.epochs)
        assert len({epoch.jkt for epoch in self.world.view.epochs.values()}) == len(self.world.view.epochs)

    @invariant()
    def counters_agree_with_the_steps(self) -> None:
        run = self.world.view.run
        if run is None:
            return
        states = [step.state for step in self.world.view.steps.values()]
        assert run.history.in_flight == sum(s in {StepState.STARTED, StepState.SUSPENDED} for s in states)
        assert all(amount > 0 for amount in run.history.meters.values())
        counted: dict[str, int] = {}
        for grant in self.world.view.grants.values():
            for name, amount in grant.meters.items():
                counted[name] = counted.get(name, 0) + amount
        assert dict(run.history.meters) == counted

    @invariant()
    def a_spent_approval_names_one_grant_that_may_have_been_used(self) -> None:
        for approval in self.world.view.approvals.values():
            if approval.status is ApprovalStatus.CONSUMED:
                assert self.world.view.grants[approval.consumed_by or ""].approval == approval.id

    @invariant()
    def folding_the_entries_gives_the_tables(self) -> None:
        folded = fold.apply_all(View(), [reread(entry) for entry in self.world.entries])
        assert plain(folded) == plain(self.world.view)

    @invariant()
    def the_chain_holds(self) -> None:
        previous = GENESIS
        for seq, entry in enumerate(self.world.entries):
            assert (entry.seq, entry.fields["prev"]) == (seq, previous)
            previous = canonical.b64u(hashlib.sha256(entry.data).digest())


TestRunMachine = RunMachine.TestCase
