"""One rehearsal: a fresh broker and folder, lives of the agent until its run has ended, and what was seen.

Rules:
* A life dies where the scenario says; each later one is started as a supervisor would, with the same command.
* A person's question is answered with yes as soon as it is asked. Where the scenario is about the question, the agent
  is stopped first, if it did not end by itself, and answered while nothing of it runs.
* It ends when the run has ended, when a person would have to settle a doubt, or when lives make no progress any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.rehearse import workspace
from stepgrant_broker.commands.rehearse.lives import Ended, Life, Lives, last_words
from stepgrant_broker.commands.rehearse.policies import Policy
from stepgrant_broker.commands.rehearse.scenarios import FIRST, Scenario
from stepgrant_broker.commands.rehearse.stage import Stage, Standing
from stepgrant_broker.commands.rehearse.trace import Call, Hit, Trace, read

if TYPE_CHECKING:
    from stepgrant_broker.domain.state import Run

MAX_IDLE: Final = 2
"""Lives in a row that change nothing before the agent counts as stuck."""
IN_DOUBT: Final = "step_in_doubt"
POLL_S: Final = 0.02
LOOK_S: Final = 0.1
BESIDE: Final = "beside"
READY: Final = b"ready"
INSIDE: Final = Path(__file__).with_name("inside")


@dataclass(frozen=True, slots=True)
class Order:
    """What the author wants rehearsed. `folder` is the agent's own; `timeout_s` is for each life."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    policy: Policy
    agents: tuple[str, ...]
    timeout_s: float
    ttl_s: int
    in_place: bool = False
    beside: Sequence[str] = ()
    """Services of the agent: started before it, ready once they print a line `ready`, and ended after it."""
    patient_s: float = 2.0
    """How long an agent may take to end by itself once its question is asked; who waits for the answer is stopped."""


@dataclass(slots=True)
class Rehearsal:
    """What was seen of one scenario."""

    scenario: Scenario
    lives: list[Ended] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    standing: Standing = field(default_factory=lambda: Standing((), {}, ()))
    ledger: list[str] = field(default_factory=list)
    approved: int = 0
    needs_person: bool = False
    stuck: bool = False
    seconds: float = 0.0

    @property
    def run(self) -> Run | None:
        """The run that the agent opened first."""
        return self.standing.runs[-1] if self.standing.runs else None

    @property
    def over(self) -> bool:
        """Whether each of its runs came to an end of its own, good or bad."""
        return bool(self.standing.runs) and all(run.state.ended for run in self.standing.runs)

    @property
    def finished(self) -> bool:
        """Whether each of its runs was completed."""
        return self.over and all(run.state.value == "completed" for run in self.standing.runs)

    @property
    def died(self) -> bool:
        """Whether a life was ended at the boundary that the scenario names."""
        return self._last_hit is not None

    @property
    def killed_in(self) -> Call | None:
        """The call in which that life was ended."""
        return self._last_hit.call if self._last_hit is not None else None

    @property
    def _last_hit(self) -> Hit | None:
        moment, nth = self.scenario.moment, self.scenario.nth
        hits = self.trace.hits_of(self.scenario.life, moment.value) if moment is not None else []
        return hits[nth - 1] if 0 < nth <= len(hits) else None


class Performance:
    """Performs one scenario."""

    def __init__(self, order: Order, scenario: Scenario, lives: Lives, folder: Path, most_lives: int) -> None:
        self._order = order
        self._most_lives = most_lives
        self._scenario = scenario
        self._lives = lives
        self._folder = folder
        self._result = Rehearsal(scenario)
        self._acts = 0
        """What people did so far: after it, another try is none too many."""

    def perform(self) -> Rehearsal:
        """All lives. Raises `CommandError` if the command cannot be started."""
        began = time.monotonic()
        self._folder.mkdir(mode=0o700)
        order = self._order
        with ExitStack() as stack:
            stage = stack.enter_context(Stage(self._folder / "broker", self._policy(), order.agents, order.ttl_s))
            place = order.folder if order.in_place else workspace.copy(order.folder, self._folder / "work")
            if order.beside:
                beside = self._lives.start(order.beside, self._besides(stage), place, self._folder / BESIDE)
                stack.callback(self._end_beside, beside)
                self._await_ready(beside)
            self._live_on(stage, place)
            self._result.standing = stage.look()
            self._result.ledger = stage.ledger_findings()
        self._result.trace = read(self._book)
        self._result.seconds = time.monotonic() - began
        return self._result

    @property
    def _book(self) -> Path:
        return self._folder / "seen.jsonl"

    def _policy(self) -> Mapping[str, str]:
        scenario = self._scenario
        return self._order.policy.asking(scenario.ask) if scenario.ask else self._order.policy.files

    def _live_on(self, stage: Stage, place: Path) -> None:
        idle, before = 0, None
        for number in range(1, self._most_lives + 1):
            ended = self._one_life(stage, place, number)
            self._result.lives.append(ended)
            stage.bury()
            told = read(self._book).calls_of(number)
            if self._is_over(stage, ended, told):
                return
            now = (_progress(stage), self._acts, ended.code, _last_error(told))
            idle = idle + 1 if before is not None and _is_same(before, now) else 0
            if idle >= MAX_IDLE:
                break
            before = now
            self._between(stage, number)
        self._result.stuck = True

    def _is_over(self, stage: Stage, ended: Ended, told: Sequence[Call]) -> bool:
        runs = stage.runs()
        if not ended.in_time or (not runs and ended.code >= 0):
            return True
        if runs and all(run.state.ended for run in runs):
            # Whatever the command's exit code: a run that has ended has nothing left to do.
            return True
        self._result.needs_person = any(call.error == IN_DOUBT for call in told) and bool(stage.in_doubt())
        return self._result.needs_person

    def _between(self, stage: Stage, number: int) -> None:
        """What people do while nothing of the agent runs."""
        scenario = self._scenario
        if scenario.forbid and scenario.ask and number == FIRST:
            stage.activate(self._order.policy.forbidding(scenario.ask))
            self._acts += 1
        elif scenario.forbid and number == FIRST + 1:
            stage.activate(self._policy())
            self._acts += 1
        self._answer(stage)

    def _answer(self, stage: Stage) -> None:
        for approval in stage.pending():
            stage.approve(approval.id)
            self._result.approved += 1
            self._acts += 1

    # ------------------------------------------------------------------------------------------------- one process

    def _one_life(self, stage: Stage, place: Path, number: int) -> Ended:
        environment = {
            **self._environment(stage, number),
            **(self._scenario.failpoint if number == self._scenario.life else {}),
        }
        life = self._lives.start(self._order.words, environment, place, self._folder / "output")
        try:
            self._watch(stage, life, number)
            return life.ended()
        except BaseException:
            life.stop()
            life.ended()
            raise
        finally:
            self._lives.forget(life)

    def _environment(self, stage: Stage, number: int) -> dict[str, str]:
        kept = dict(self._order.environment)
        path = [str(INSIDE), *filter(None, [kept.get("PYTHONPATH")])]
        return {
            **kept,
            **stage.environment,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            "STEPGRANT_REHEARSAL": str(self._book),
            "STEPGRANT_REHEARSAL_FOLDER": str(self._place()),
            "STEPGRANT_REHEARSAL_LIFE": str(number),
        }

    def _place(self) -> Path:
        return self._order.folder if self._order.in_place else self._folder / "work"

    def _watch(self, stage: Stage, life: Life, number: int) -> None:
        asked_at: float | None = None
        looked = 0.0
        while life.running:
            time.sleep(POLL_S)
            if life.seconds > self._order.timeout_s:
                life.stop(late=True)
            if time.monotonic() - looked < LOOK_S:
                continue
            looked = time.monotonic()
            if self._scenario.ask is None or number > 1:
                self._answer(stage)
            elif asked_at is None:
                asked_at = looked if stage.pending() else None
            elif looked - asked_at > self._order.patient_s:
                life.stop()

    # ------------------------------------------------------------------------------------------ what runs beside it

    def _besides(self, stage: Stage) -> dict[str, str]:
        """The author's own services live as long as the rehearsal, and enrol themselves; they are no agent."""
        named = {"STEPGRANT_URL": stage.environment["STEPGRANT_URL"], "STEPGRANT_TOKEN": stage.operator}
        return {**self._order.environment, **named, "PYTHONUNBUFFERED": "1"}

    def _await_ready(self, beside: Life) -> None:
        output = self._folder / BESIDE
        while READY not in output.read_bytes().splitlines():
            if not beside.running or beside.seconds > self._order.timeout_s:
                said = " | ".join(last_words(output)) or "nothing"
                raise CommandError(f"what --beside starts did not print a line `ready`; it said last: {said}")
            time.sleep(POLL_S)

    def _end_beside(self, life: Life) -> None:
        life.stop()
        life.ended()
        self._lives.forget(life)


Came = tuple[int, int, int, tuple[str, ...] | None]
"""Of a life: what the run had done by then, and people, the exit code, and the last error that the agent was told."""


def _progress(stage: Stage) -> int:
    """Something that grows with everything but opening and parking."""
    return sum(run.step_count + run.history.in_flight + sum(run.history.outcomes.values()) for run in stage.runs())


def _last_error(told: Sequence[Call]) -> tuple[str, ...] | None:
    return next(((str(call.error), *call.same) for call in reversed(told) if call.error), None)


def _is_same(before: Came, now: Came) -> bool:
    """Nothing was done in between, or the same call ended in the same way again although nobody said anything to it."""
    return before[:2] == now[:2] or (now[3] is not None and before[1:] == now[1:])
