"""A state machine that does to the real use cases what it does to the model, and compares every answer and all state.

Two runs at a time, several processes each (the newest holder, its zombies), people, a resource server, an operator, a
clock that jumps, lost answers that are asked for again, and a broker that ends before or after a commit.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from model.compare import differences
from model.plain import Plain
from model.real import Died, Real, Seen
from model.said import Answered, Refused, Said, agree
from model.things import Call

STEPS: Final = {
    "look": Call("look", "read"),
    "peek": Call("peek", "read", retry=True),
    "put": Call("put", "idempotent"),
    "push": Call("push", "idempotent", retry=True),
    "pay": Call("pay", "once"),
    "send": Call("send", "once", retry=True),
}
RUNS: Final = ("one", "two")
TICKS: Final = (13, 1_013, 5_101, 9_209, 11_311, 16_421, 31_531, 66_641, 301_751, 901_861, 86_401_907)
"""No two of them add up to a limit of the protocol: at the very millisecond the page does not say who wins."""
BEFORE: Final = "usecase.before_commit"
LOST: Final = Refused(frozenset({"the broker died"}))
_examples = itertools.count()

runs = st.sampled_from(RUNS)
usually = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False, False, False, True])


class Walk(RuleBasedStateMachine):
    """`real` and `wait` (runs a coroutine) are set by whoever runs it."""

    real: Real
    counts: ClassVar[Counter[str]] = Counter()
    wait: Callable[[Coroutine[Any, Any, Any]], Any]

    def __init__(self) -> None:
        super().__init__()
        self.number = next(_examples)
        self.plain = Plain(self.real.hand.clock.now())
        self.held: dict[str, list[tuple[str, int]]] = {}
        self.seen: dict[str, Seen] = {}
        self.serial = itertools.count()
        self.point: str | None = None
        self.insists = False

    def name(self, run: str) -> str:
        return f"{self.number}-{run}"

    def request(self) -> str:
        return f"{self.number}-request-{next(self.serial)}"

    def teardown(self) -> None:
        self.real.spare()
        for name in self.plain.runs:
            self.wait(self.real.forget(name))

    # --- one call --------------------------------------------------------------------------------------------------

    def both(
        self,
        does: Callable[[], Said],
        really: Callable[[], Coroutine[Any, Any, Said]],
        *,
        kept: bool = False,
        insist: bool = False,
    ) -> Said:
        """Do it to the model and to the real one, and compare answers and state.

        `really` repeats the same call (same Idempotency-Key) if it is called again. `kept`: an answer is stored, so the
        repeated call gives it again. `insist`: a lost answer is asked for again in any case.
        """
        before = copy.deepcopy(self.plain)
        may = does()
        heard = self._hear(really)
        if heard is None:
            happened = self.point != BEFORE
            self.plain = self.plain if happened else before
            if not (self.insists or insist):
                self.look()
                self.counts["lost"] += 1
                return LOST
            may = may if happened and kept and isinstance(may, Answered) else does()
            heard = self._hear(really)
        self.point = None
        assert heard is not None, "it died twice"
        assert agree(may, heard), f"{may}, but the broker {heard}"
        self.count(heard)
        self.look()
        return heard

    def count(self, heard: Said) -> None:
        """Remember what was reached, so that a test can see that the walk goes far enough."""
        if isinstance(heard, Refused):
            self.counts.update(f"refused {code}" for code in heard.codes)
        else:
            self.counts[f"answered {dict(heard.members).get('outcome', '')}".strip()] += 1

    def _hear(self, really: Callable[[], Coroutine[Any, Any, Said]]) -> Said | None:
        try:
            return self.wait(really())  # type: ignore[no-any-return]  # whatever the coroutine returns
        except Died:
            self.wait(self.real.restart())
            return None
        finally:
            self.real.spare()

    def look(self) -> None:
        """All state is as the model says; what only the broker can name or round is taken from it."""
        for name in self.plain.runs:
            self.seen[name] = self.wait(self.real.see(name))
            found = differences(self.plain, name, self.seen[name])
            assert not found, f"run {name}: {found}"

    @rule(point=st.sampled_from([BEFORE, "usecase.after_commit"]), insists=usually)
    def die(self, point: str, insists: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """The broker will end in the middle of the next call; `insists`: its caller asks again."""
        self.real.spare()
        self.point, self.insists = point, insists
        self.real.die_at(point)

    @rule()
    def restart(self) -> None:
        self.wait(self.real.restart())

    @rule(ms=st.sampled_from([*TICKS[:5] * 4, *TICKS]))
    def tick(self, ms: int) -> None:
        self.real.hand.clock.tick(ms)
        self.plain.now = self.real.hand.clock.now()

    # --- runs --------------------------------------------------------------------------------------------------------

    @initialize(
        on_resume=st.sampled_from(["allow", "allow", "allow", "ask", "deny"]),
        keys=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=2, unique=True),
    )
    def begins(self, on_resume: str, keys: list[str]) -> None:
        self.keys: st.SearchStrategy[str] = st.sampled_from(keys)  # few, so that much happens to each
        self._open("one", value=1, on_resume=on_resume, takeover=False)

    @rule(run=runs, value=st.sampled_from([1, 1, 1, 1, 2]), takeover=usually, lapse=rarely)
    def open(self, run: str, value: int, takeover: bool, lapse: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        if lapse and self.name(run) in self.plain.runs:
            self.tick(31_531)
        self._open(run, value=value, on_resume="allow", takeover=takeover)

    def _open(self, run: str, *, value: int, on_resume: str, takeover: bool) -> None:
        name, request = self.name(run), self.request()
        key = f"{name}-key-{next(self.serial)}"
        sent: dict[str, Any] = {"value": value, "on_resume": on_resume, "takeover": takeover}
        heard = self.both(
            lambda: self.plain.open(name, key, **sent),
            lambda: self.real.open(name, key, request, **sent),
            kept=True,
            insist=name not in self.plain.runs,  # else nobody would know the run's id
        )
        if isinstance(heard, Answered):
            self.held.setdefault(name, []).append((key, self.plain.runs[name].epoch))

    def come_back(self, name: str) -> None:
        """Whoever lost the run takes it up again, so that most calls are those of a holder."""
        run = self.plain.runs[name]
        if run.state == "parked" or (run.state == "open" and self.plain.now >= run.lease_until):
            self._open(name.partition("-")[2], value=1, on_resume="allow", takeover=False)

    def holder(self, name: str, data: st.DataObject) -> tuple[str, str, int]:
        """A process of the run, with its key and epoch: mostly its holder, else a zombie."""
        known = self.held[name]
        key, epoch = known[-1] if data.draw(usually) else data.draw(st.sampled_from(known))
        return name, key, epoch

    def run_of(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.held)))

    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        who = self.holder(self.run_of(data), data)
        self.both(lambda: self.plain.heartbeat(*who), lambda: self.real.heartbeat(*who))

    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        who = self.holder(self.run_of(data), data)
        request = self.request()
        self.both(lambda: self.plain.park(*who), lambda: self.real.park(*who, request), kept=True)

    @rule(data=st.data(), how=st.sampled_from(["completed", "failed", "cancelled"]), really=rarely)
    def end(self, data: st.DataObject, how: str, really: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        if not really:  # or most examples would be over soon
            return
        who, request = self.holder(self.run_of(data), data), self.request()
        self.both(lambda: self.plain.end(*who, how), lambda: self.real.end(*who, how, request), kept=True)

    @rule(data=st.data(), really=rarely, lift=usually)
    def quarantine(self, data: st.DataObject, really: bool, lift: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        name = self.run_of(data)
        if really:
            self.both(lambda: self.plain.quarantine(name), lambda: self.real.quarantine(name))
            self._open(name.partition("-")[2], value=1, on_resume="allow", takeover=True)  # refused, unless it ended
        if lift and not self.plain.runs[name].ended:
            self.both(lambda: self.plain.lift(name), lambda: self.real.lift(name))

    @rule()
    def sweep(self) -> None:
        self.real.spare()
        self.wait(self.real.sweep())
        self.plain.sweep()
        self.look()
