"""Zombies by schedule: who freezes when, who comes after it and how, and when the dead wake. All from one seed.

A zombie is an agent that SIGSTOP froze anywhere: idle, with a credential in its hand, or in the middle of a call. When
it wakes it asks for everything that a holder may ask for, under its own epoch and under its successor's, and all of it
must be refused. Whoever was not frozen may lose its lease on a slow machine; that is no violation.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.processes import Line, Puppet
from faults.puppet import CALLS
from faults.sites import Site

LEASE_S: Final = 0.8
PATIENT: Final = "40"
IN_FLIGHT_S: Final = 0.02
PARKED_WITHIN_S: Final = 30.0
TAKEN_OVER: Final = 0.6
OK: Final = 200
ASKING: Final = ("heartbeat", "begin-new", "record", "complete", "end-complete", "park")
MOMENTS: Final = (
    "idle", "holding", "presented", "open", "hold pay", "present", "return", *(f"ask {verb}" for verb in ASKING)
)  # fmt: skip
"""Where the first holder is frozen: between two calls, or in the middle of one."""
AFTERWARDS: Final = ("hold pay", "park", "leave", "freeze")
OVER: Final = {"completed", "failed", "cancelled"}


@dataclass
class Actor:
    """An agent of the schedule. `inside`: it is in a tool, with a credential. `waiting`: an answer is still to come."""

    puppet: Puppet
    heard: Path
    who: str
    epoch: int = 0
    inside: bool = False
    waiting: str = ""

    def do(self, command: str) -> Line:
        """Tell and wait; what it means is remembered."""
        self.puppet.tell(command)
        self.waiting = command
        return self.answer()

    def answer(self) -> Line:
        """The answer to what it was told."""
        command, self.waiting = self.waiting, ""
        said = self.puppet.answer()
        if not said:
            raise RuntimeError(f"the agent died at {command!r}")
        if "epoch" in said:
            self.epoch = int(said["epoch"])
        if command.startswith("hold"):
            self.inside = "holding" in said
        if command == "return":
            self.inside = False
        return said

    def reset(self) -> None:
        """Idle again, for the next schedule."""
        if self.waiting:
            self.answer()
        if self.inside:
            self.do("return")
        if self.epoch:
            self.do("leave")
        self.epoch = 0


@dataclass
class Schedule:
    """One run and its holders, one after the other."""

    seed: int
    site: Site
    troupe: Sequence[Actor]
    run: str = ""
    over: bool = False
    parked: bool = False
    held_by: Actor | None = None
    zombies: list[Actor] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    @property
    def key(self) -> str:
        """The run key."""
        return f"schedule-{self.seed}"

    def say(self, text: str) -> None:
        """Remember what happened, for a failure."""
        self.told.append(text)

    def play(self) -> None:
        """All of it; `wrong` says what did not hold."""
        first, second, rescuer = self.troupe
        try:
            opening = self.enter(first)
            self.follow(second, self.chance.choice(("resume",) if opening else ("resume", "resume", "nobody")))
            if self.held_by is None and not self.over and self.chance.random() < TAKEN_OVER:
                self.follow(rescuer, "takeover")
            self.chance.shuffle(self.zombies)
            for zombie in self.zombies:
                self.wake(zombie)
        finally:
            for actor in self.troupe:
                actor.puppet.thaw()
                actor.reset()

    def enter(self, actor: Actor) -> bool:
        """The first holder works, naps for less than its lease, and is frozen; whether that was while it opened."""
        moment = self.chance.choice(MOMENTS)
        if moment == "open":
            self.freeze(actor, f"open {self.key}")
            return True
        self.run = str(actor.do(f"open {self.key}")["run"])
        for _ in range(self.chance.choice((0, 0, 1))):
            actor.puppet.freeze()
            time.sleep(self.chance.uniform(0, LEASE_S / 3))
            actor.puppet.thaw()
        if moment in {"holding", "presented", "present", "return"}:
            self.say(f"first: {actor.do('hold pay')}")
        if actor.inside and moment in {"presented", "return"}:
            self.say(f"first: {actor.do('present')}")
        in_flight = moment.startswith(("hold ", "ask ")) or (moment in {"present", "return"} and actor.inside)
        self.freeze(actor, moment if in_flight else "")
        return False

    def freeze(self, actor: Actor, call: str = "") -> None:
        """It stands still, perhaps in the middle of this call."""
        if call:
            actor.puppet.tell(call)
            actor.waiting = call
            time.sleep(self.chance.uniform(0, IN_FLIGHT_S))
        actor.puppet.freeze()
        self.zombies.append(actor)
        self.held_by = None
        self.say(f"{actor.who} of epoch {actor.epoch} frozen in {call or 'nothing'}")

    def follow(self, actor: Actor, kind: str) -> None:
        """Somebody comes for the run, or nobody does until the broker has parked it."""
        if kind == "nobody":
            state = self.state()
            self.over, self.parked = state in OVER, True
            self.say(f"nobody came: {state}")
            return
        said = actor.do(f"open {self.key} {PATIENT}" + (" takeover" if kind == "takeover" else ""))
        self.say(f"{kind}: {said}")
        self.over = said.get("refused") == "run_ended"
        if "epoch" not in said:
            if not self.over:
                self.wrong.append(f"the successor was refused: {said}")
            return
        self.run, self.held_by = str(said["run"]), actor
        then = self.chance.choice(AFTERWARDS[: 3 if kind == "takeover" else 4])
        if then == "freeze":
            self.freeze(actor, self.chance.choice(("", "hold pay", "ask record")))
            return
        said = actor.do(then)
        self.say(f"successor: {then}: {said}")
        self.over = then == "leave" and "left" in said

    def state(self) -> str:
        """The run's state, once nobody holds it any more."""
        end = time.monotonic() + PARKED_WITHIN_S
        while time.monotonic() < end:
            state = self.site.state(self.run)
            if state != "open":
                return state
            time.sleep(0.05)
        self.wrong.append("the run of a frozen holder was never parked")
        return "open"

    def wake(self, zombie: Actor) -> None:
        """It goes on with what it was doing, and then asks for everything; what is certainly fenced gets nothing."""
        newest = max(actor.epoch for actor in self.troupe)
        zombie.puppet.thaw()
        if zombie.waiting:
            self.say(f"{zombie.who} woke to {zombie.answer()}")
        fenced = zombie.epoch < newest or (zombie.epoch == newest and (self.over or self.parked))
        if not zombie.epoch or not fenced:
            return
        refused = {"run_ended"} if self.over else {"stale_epoch"}
        verbs = list(CALLS)
        self.chance.shuffle(verbs)
        for verb in verbs:
            self.refuse(zombie, f"ask {verb}", refused)
        if zombie.epoch < newest:
            self.refuse(zombie, f"ask {self.chance.choice(verbs)} {newest}", refused | {"wrong_holder"})
        if zombie.inside:
            said = zombie.do("present")
            if said["status"] == OK:
                self.wrong.append(f"{zombie.who} of epoch {zombie.epoch} used a credential after its time")
            self.refuse(zombie, "return", refused | {"stale_epoch"})

    def refuse(self, zombie: Actor, command: str, codes: set[str]) -> None:
        """The answer is one of these refusals, and nothing else."""
        said = zombie.do(command)
        if said.get("refused") not in codes or len(said) > 1:
            self.wrong.append(f"{zombie.who} of epoch {zombie.epoch} asked {command!r} and got {said}")
