"""What the machine does to steps, grants and approvals: agents, resource servers, hooks and people."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from model.machine import STEPS, Walk, rarely, usually
from model.said import Answered, Said
from model.things import Call, Decision

OUTCOMES: Final = st.sampled_from(["completed", "completed", "not_executed", "failed", "unknown", "suspended"])
VERDICTS: Final = st.sampled_from(["done", "not_done", "unknown"])


@st.composite
def decisions(draw: st.DrawFn, effect: str) -> Decision:
    """What policy may say of an action of this effect."""
    verdict = draw(st.sampled_from(["allow", "allow", "allow", "require_approval", "deny"]))
    consent = effect if draw(usually) else None
    redeem = draw(st.sampled_from([None, None, "required", "optional"]))
    ttl_s = draw(st.sampled_from([60, 60, 10, 300]))
    return Decision(verdict, consent, ttl_s, redeem, draw(st.sampled_from([1, 1, 2])))


class Model(Walk):
    """The whole machine."""

    # --- steps -------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), args=st.sampled_from([1, 1, 1, 1, 2]), other=rarely, act=usually)
    def step(self, data: st.DataObject, args: int, other: bool, act: bool) -> None:  # noqa: FBT001 - as above
        name = self.run_of(data)
        if data.draw(usually):
            self.come_back(name)
        who = self.holder(name, data)
        key = data.draw(self.keys)
        effect = data.draw(st.sampled_from(["read", "idempotent", "once"])) if other else STEPS[key].effect
        call = replace(STEPS[key], args=args, effect=effect)
        self._begin(who, call, data.draw(decisions(effect)), act=act)
        uses: bool = data.draw(usually)
        if self.plain.runs[name].grants and uses:
            self._redeem(name, len(self.plain.runs[name].grants) - 1, other=False, again=False)
        if data.draw(rarely):
            self.outcome(data, late=False, how=data.draw(OUTCOMES))

    @rule(data=st.data(), key=st.sampled_from(["put", "pay"]))
    def taken_over_in_the_act(self, data: st.DataObject, key: str) -> None:
        """A credential is used, somebody takes over, and begins at once: what the old one holds may still act."""
        name = self.run_of(data)
        self.come_back(name)
        for _ in range(2):
            self._begin(self.held_by(name), STEPS[key], Decision(effect=STEPS[key].effect))
            if self.plain.runs[name].grants:
                self._redeem(name, len(self.plain.runs[name].grants) - 1, other=False, again=False)
            self._open(name.partition("-")[2], value=1, on_resume="allow", takeover=True)

    def _begin(self, who: tuple[str, str, int], call: Call, decision: Decision, *, act: bool = True) -> Said:
        request = self.request()
        return self.both(
            lambda: self.plain.step(*who, call, decision, act=act),
            lambda: self.real.step(*who, call, decision, act=act, request=request),
            kept=not act,
        )

    @rule(data=st.data(), other=rarely, again=rarely)
    def redeem(self, data: st.DataObject, other: bool, again: bool) -> None:  # noqa: FBT001 - as above
        name = self.run_of(data)
        grants = self.plain.runs[name].grants
        if grants:
            self._redeem(name, data.draw(st.integers(0, len(grants) - 1)), other=other, again=again)

    def _redeem(self, name: str, number: int, *, other: bool, again: bool) -> None:
        known, real = self.plain.runs[name].grants[number], self.seen[name].grants[number]
        rid = known.rid if again and known.rid else f"{real.jti}-{next(self.serial)}"
        call = Call(known.step, known.effect, known.args + other)
        self.both(
            lambda: self.plain.redeem(name, self.plain.runs[name].grants[number], rid, args=call.args),
            lambda: self.real.redeem(real, rid, call),
        )

    @rule(data=st.data(), late=rarely, how=OUTCOMES)
    def outcome(self, data: st.DataObject, late: bool, how: str) -> None:  # noqa: FBT001 - as above
        who = self.holder(self.run_of(data), data)
        known = self.plain.runs[who[0]].steps
        under_way = sorted(key for key, step in known.items() if step.under_way)
        flying: bool = data.draw(usually)
        keys = st.sampled_from(under_way) if under_way and flying else self.keys
        key = data.draw(keys)
        step = known.get(key)
        what = (*who, key, (step.attempt if step else 1) + late)
        request = self.request()
        if how == "completed":
            self.both(lambda: self.plain.complete(*what), lambda: self.real.complete(*what, request), kept=True)
        elif how == "suspended":
            self.both(lambda: self.plain.suspend(*what), lambda: self.real.suspend(*what, request), kept=True)
        else:
            self.both(lambda: self.plain.fail(*what, how), lambda: self.real.fail(*what, how, request), kept=True)

    def in_doubt(self, data: st.DataObject) -> tuple[str, str, int] | None:
        """Run, step and attempt of some step in doubt, or of one that is not."""
        name = self.run_of(data)
        known = self.plain.runs[name].steps
        doubtful = sorted(key for key, step in known.items() if step.row == "in_doubt") or sorted(known)
        if not doubtful:
            return None
        key = data.draw(st.sampled_from(doubtful))
        return name, key, known[key].attempt

    @rule(data=st.data(), verdict=VERDICTS, wait=usually)
    def look_and_reconcile(self, data: st.DataObject, verdict: str, wait: bool) -> None:  # noqa: FBT001 - as above
        """The hook: a read step of its own looks at the target, and says what it saw."""
        found = self.in_doubt(data)
        if found is None:
            return
        name, key, attempt = found
        if wait:
            self.tick(16_421)
            self.both(
                lambda: self.plain.heartbeat(*self.held_by(name)), lambda: self.real.heartbeat(*self.held_by(name))
            )
        who = self.held_by(name)
        look, at, request = f"{key}~reconcile~{next(self.serial)}", self.plain.now, self.request()
        begun = self._begin(who, Call(look, "read"), Decision(effect="read"))
        if not isinstance(begun, Answered):
            return
        self.both(
            lambda: self.plain.complete(*who, look, 1), lambda: self.real.complete(*who, look, 1, request), kept=True
        )
        self.both(
            lambda: self.plain.reconcile(*who, key, verdict, look_at=at),
            lambda: self.real.reconcile(*who, key, verdict, attempt=attempt, via=look, request=request),
            kept=True,
        )

    def held_by(self, name: str) -> tuple[str, str, int]:
        return (name, *self.held[name][-1])

    @rule(data=st.data(), verdict=VERDICTS)
    def reconcile_by_person(self, data: st.DataObject, verdict: str) -> None:
        found = self.in_doubt(data)
        if found is None:
            return
        name, key, attempt = found
        request = self.request()
        self.both(
            lambda: self.plain.reconcile_by_person(name, key, verdict),
            lambda: self.real.reconcile_by_person(name, key, verdict, attempt=attempt, request=request),
            kept=True,
        )

    # --- people ------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), verdict=st.sampled_from(["approve", "approve", "approve", "deny"]), shown=usually)
    def answer(self, data: st.DataObject, verdict: str, shown: bool) -> None:  # noqa: FBT001 - as above
        name = self.run_of(data)
        asked = self.plain.runs[name].approvals
        if not asked:
            return
        number = len(asked) - 1 if data.draw(usually) else data.draw(st.integers(0, len(asked) - 1))
        who = data.draw(st.sampled_from(sorted({"ann", "bob", "cleo"} - asked[number].yes)))
        approval, request = self.seen[name].approvals[number], self.request()
        self.both(
            lambda: self.plain.decide(name, number, who, verdict, shown=shown),
            lambda: self.real.decide(name, approval, who, verdict, shown=shown, request=request),
            kept=True,
        )

    @rule(data=st.data(), really=rarely)
    def revoke(self, data: st.DataObject, really: bool) -> None:  # noqa: FBT001 - as above
        name = self.run_of(data)
        grants = self.plain.runs[name].grants
        if not (grants and really):
            return
        number = data.draw(st.integers(0, len(grants) - 1))
        real = self.seen[name].grants[number]
        self.both(lambda: self.plain.revoke(name, number), lambda: self.real.revoke(real))
