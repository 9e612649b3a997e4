"""What is rehearsed: the plain run, a death at each boundary of each step, and waits for a person. Pure.

Rules:
* Boundaries come out of the plain run as it happened, not out of the code: what was called is what is killed.
* `--quick` takes the first step of each tool; without it every step is taken.
* A scenario's id is stable for the same agent, so that `--only` repeats one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stepgrant_broker.commands.rehearse.trace import Call, Trace

PLAIN: Final = "plain"
FIRST: Final = 1


class Moment(StrEnum):
    """A boundary of a step, by the failpoint of the SDK that is there."""

    BEFORE_GRANT = "sdk.before_begin"
    AFTER_GRANT = "sdk.before_effect"
    AFTER_EFFECT = "sdk.after_effect"
    AFTER_RECORD = "sdk.after_complete"

    @property
    def words(self) -> str:
        """As people say it."""
        return _WORDS[self]


_WORDS: Final = {
    Moment.BEFORE_GRANT: "before the grant",
    Moment.AFTER_GRANT: "after the grant",
    Moment.AFTER_EFFECT: "after the effect",
    Moment.AFTER_RECORD: "after the record",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One rehearsal. It is killed in life `life` at the `nth` hit of its moment's failpoint."""

    id: str
    words: str
    moment: Moment | None = None
    nth: int = 0
    life: int = FIRST
    ask: str | None = None
    forbid: bool = False
    tool: str | None = None

    @property
    def failpoint(self) -> dict[str, str]:
        """What the environment of the life that is to be killed orders."""
        if self.moment is None:
            return {}
        return {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": f"{self.moment.value}:kill:{self.nth}"}


PLAIN_RUN: Final = Scenario(PLAIN, "nothing happens to it")


def plan(plain: Trace, *, quick: bool, can_ask: bool) -> list[Scenario]:
    """All rehearsals after the plain one. `can_ask`: policy can be told to ask a person about a tool."""
    steps = _quick(_steps(plain)) if quick else _steps(plain)
    kills = [scenario for step in steps for scenario in _deaths(plain, step)]
    return kills + (list(_waits(steps, quick=quick)) if can_ask else [])


@dataclass(frozen=True, slots=True)
class _Step:
    """A call whose tool ran; `name` says which one of its tool's, whatever ids the agent gives."""

    call: Call
    name: str


def _steps(plain: Trace) -> list[_Step]:
    counts: Counter[str] = Counter()
    steps = []
    for call in plain.calls:
        if call.ran and not call.is_hook:
            counts[call.tool] += 1
            steps.append(_Step(call, f"{call.tool}-{counts[call.tool]}"))
    return steps


def _quick(steps: Sequence[_Step]) -> list[_Step]:
    first: dict[str, _Step] = {}
    for step in steps:
        first.setdefault(step.call.tool, step)
    return list(first.values())


def _deaths(plain: Trace, step: _Step) -> Iterable[Scenario]:
    for moment in Moment:
        hits = plain.hits_of(step.call.life, moment.value)
        places = [number for number, hit in enumerate(hits, 1) if hit.call is step.call]
        if places:
            id_ = f"{moment.name.lower().replace('_', '-')}:{step.name}"
            words = f"killed {moment.words} of {step.name}"
            yield Scenario(id_, words, moment, places[-1], step.call.life, tool=step.call.tool)


def _waits(steps: Sequence[_Step], *, quick: bool) -> Iterable[Scenario]:
    """A person is asked about each tool that acts; about one that reads only where none acts."""
    acting = [step for step in steps if step.call.effect != "read"] or list(steps)[:1]
    for step in _quick(acting)[: 1 if quick else None]:
        tool = step.call.tool
        yield Scenario(f"approve:{tool}", f"a person is asked about {tool}, and says yes", ask=tool, tool=tool)
        forbidding = f"while it waits, policy forbids {tool} for a time"
        yield Scenario(f"policy:{tool}", forbidding, ask=tool, forbid=True, tool=tool)
