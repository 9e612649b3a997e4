"""A whole rehearsing: the plain run, what follows from it, all of it performed, and the report.

Rules:
* The plain run comes first; an agent that does not get to its end by itself is not killed as well.
* The first try learns which agent it is, where no policy names it: the workload is then enrolled for it.
* With several jobs rehearsals run side by side, each with a broker, a folder and processes of its own.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.rehearse.findings import Finding, Level
from stepgrant_broker.commands.rehearse.judging import judge
from stepgrant_broker.commands.rehearse.lives import Lives
from stepgrant_broker.commands.rehearse.performing import Order, Performance, Rehearsal
from stepgrant_broker.commands.rehearse.report import Report, row_of, tools_of
from stepgrant_broker.commands.rehearse.scenarios import PLAIN_RUN, Scenario, plan

UNKNOWN_AGENT: Final = "my-agent"
"""For whom the workload is enrolled before anybody knows; what `stepgrant init` makes is called so."""
LOOK_S: Final = 0.2
MOST_LIVES: Final = 50
"""Of the plain run: an agent may end for each of its questions to a person."""
MORE_LIVES: Final = 8
"""Of the others: as the plain run, one for each step that may be asked about, and some for the crash."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line, besides the order itself."""

    quick: bool = False
    only: tuple[str, ...] = ()
    jobs: int = 1
    strict: bool = False
    outside_ok: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The words of the command line that repeating one rehearsal needs as well."""


class Progress:
    """Told of what happens; this one says nothing."""

    def planned(self, number: int) -> None:
        """So many rehearsals follow the plain one."""

    def begins(self, scenario: Scenario) -> None:
        """This one starts now."""

    def done(self, one: Rehearsal, findings: Sequence[Finding]) -> None:
        """This one has ended, and this is what it alone shows."""


class Session:
    """One rehearsing. Everything of it lies below one temporary folder, which `close` removes."""

    def __init__(self, order: Order, wanted: Wanted, lives: Lives, progress: Progress) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stepgrant-rehearse-"))
        self._order = replace(order, agents=order.agents or (UNKNOWN_AGENT,))
        self._wanted = wanted
        self._lives = lives
        self._progress = progress
        self._numbers = count(1)
        self._began = time.monotonic()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> Report:
        """Perform all. Raises `CommandError` (no such command, no such scenario)."""
        self._progress.begins(PLAIN_RUN)
        baseline = self._plain()
        first = self._judge([baseline])
        self._progress.done(baseline, first)
        done = [baseline]
        if baseline.over:
            done += self._all(self._scenarios(baseline), baseline)
        findings = self._judge(done)
        return Report(
            command=self._order.words,
            options=self._wanted.options,
            policy=self._order.policy.named,
            rows=tuple(row_of(one, baseline, findings) for one in done),
            findings=tuple(findings),
            tools=tools_of(baseline),
            notes=tuple(self._notes(done)),
            seconds=time.monotonic() - self._began,
            strict=self._wanted.strict,
        )

    def _judge(self, done: Sequence[Rehearsal]) -> list[Finding]:
        return judge(done, self._wanted.outside_ok)

    def _perform(self, scenario: Scenario, most_lives: int = MOST_LIVES) -> Rehearsal:
        folder = self.folder / str(next(self._numbers))
        return Performance(self._order, scenario, self._lives, folder, most_lives).perform()

    def _plain(self) -> Rehearsal:
        baseline = self._perform(PLAIN_RUN)
        strangers = {opened.agent for opened in baseline.trace.opened if opened.error == "forbidden"}
        if strangers - set(self._order.agents):
            self._order = replace(self._order, agents=(*self._order.agents, *sorted(strangers)))
            baseline = self._perform(PLAIN_RUN)
        return baseline

    def _scenarios(self, baseline: Rehearsal) -> list[Scenario]:
        wanted = self._wanted
        every = plan(baseline.trace, quick=wanted.quick and not wanted.only, can_ask=self._order.policy.can_ask)
        if not wanted.only:
            return every
        known = [one.id for one in every]
        for id_ in wanted.only:
            if id_ not in known:
                there = plain.joined(tuple(known))
                raise CommandError(f"there is no rehearsal {plain.visible(id_)}; there are {there}", code="not_found")
        return [one for one in every if one.id in wanted.only]

    # -------------------------------------------------------------------------------------------------- side by side

    def _all(self, scenarios: Sequence[Scenario], baseline: Rehearsal) -> list[Rehearsal]:
        self._progress.planned(len(scenarios))

        def perform(scenario: Scenario) -> Rehearsal:
            self._progress.begins(scenario)
            return self._perform(scenario, len(baseline.lives) + MORE_LIVES + len(baseline.trace.calls))

        def told(one: Rehearsal) -> Rehearsal:
            mine = [finding for finding in self._judge([baseline, one]) if one.scenario.id in finding.seen_in]
            self._progress.done(one, mine)
            return one

        if self._wanted.jobs == 1:
            return [told(perform(scenario)) for scenario in scenarios]
        with ThreadPoolExecutor(self._wanted.jobs, thread_name_prefix="rehearsal") as pool:
            futures = [pool.submit(perform, scenario) for scenario in scenarios]
            try:
                self._collect(futures, told)
            except BaseException:
                self._lives.close()  # what runs ends at once, what waits does not begin
                for future in futures:
                    future.cancel()
                raise
            return [future.result() for future in futures]

    @staticmethod
    def _collect(futures: Sequence[Future[Rehearsal]], told: Callable[[Rehearsal], Rehearsal]) -> None:
        open_ = set(futures)
        while open_:
            # A short wait, so that Ctrl-C is heard at once.
            done, open_ = wait(open_, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                told(future.result())

    # --------------------------------------------------------------------------------------------------------- notes

    def _notes(self, done: Sequence[Rehearsal]) -> list[str]:
        baseline, notes = done[0], []
        if baseline.standing.runs and not baseline.trace.hits:
            notes.append(
                "the agent's process could not be watched from inside (it is not Python, or was started with -I, -E or "
                "-S), so nothing was killed, and effects outside of tools were not seen"
            )
        elif baseline.over and len(done) == 1:
            notes.append("the agent called no tool, so there was no step to kill it at")
        if baseline.over and not self._order.policy.can_ask:
            notes.append(
                "questions to people were rehearsed only where policy asks by itself: it has no settings of the "
                "starter policy (stepgrant_config/data.json) that could be told to"
            )
        if not baseline.over and not any(one.kind.level is Level.ERROR for one in self._judge([baseline])):
            notes.append("the plain run did not end, so nothing was killed")
        for one in done:
            notes += [f"{one.scenario.id}: the ledger does not hold: {finding}" for finding in one.ledger]
        missed = [one.scenario.id for one in done if one.scenario.moment is not None and not one.died]
        if missed:
            notes.append(f"boundaries of the plain run that were not reached again: {', '.join(missed)}")
        return notes
