"""How a rehearsing looks: progress on stderr while it runs, then the table and each finding with its mending.

Rules:
* stdout has the report alone; with `--json` that is one document. Progress goes to stderr in both modes.
* On a terminal progress is one line that is rewritten; piped, one line for each rehearsal that has ended.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Final

from stepgrant.cli import plain
from stepgrant.cli.output import Output
from stepgrant_broker.commands.rehearse.findings import Finding, Level
from stepgrant_broker.commands.rehearse.performing import Rehearsal
from stepgrant_broker.commands.rehearse.report import COLUMNS, Report
from stepgrant_broker.commands.rehearse.scenarios import PLAIN, Scenario
from stepgrant_broker.commands.rehearse.session import Progress

LEVELS: Final = {Level.ERROR: ("ERROR", "bold red"), Level.WARNING: ("warning", "yellow")}
SHOWN_IN: Final = 3
CLEAR: Final = "\r\x1b[2K"


class Told(Progress):
    """Progress in words, on stderr. Safe to call from several threads."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._all: int | None = None
        self._done = 0
        self._running: dict[str, str] = {}

    def planned(self, number: int) -> None:
        """So many follow."""
        with self._lock:
            self._all = 1 + number

    def begins(self, scenario: Scenario) -> None:
        """This one starts now."""
        with self._lock:
            self._running[scenario.id] = scenario.words
            self._draw()

    def done(self, one: Rehearsal, findings: Sequence[Finding]) -> None:
        """This one has ended."""
        codes = plain.joined(tuple(dict.fromkeys(finding.code for finding in findings)), "ok")
        with self._lock:
            self._done += 1
            self._running.pop(one.scenario.id, None)
            if self._live:
                self._draw()
            else:
                words = plain.visible(one.scenario.words)
                sys.stderr.write(f"[{self._done:>3}/{self._all or '?'}] {words}: {codes} ({one.seconds:.1f} s)\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Nothing runs any more."""
        if self._live:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

    def _draw(self) -> None:
        if self._live:
            now = plain.visible(", ".join(self._running.values()))[:90]
            sys.stderr.write(f"{CLEAR}[{self._done}/{self._all or '?'}] {now}")
            sys.stderr.flush()


def show(out: Output, report: Report) -> None:
    """The report for people."""
    out.table(COLUMNS, [row.cells for row in report.rows], empty="nothing was rehearsed")
    for finding in report.findings:
        _finding(out, report, finding)
    out.line()
    for note in report.notes:
        out.line(f"note: {plain.visible(note)}", "dim")
    errors = sum(report.counts_as_error(one) for one in report.findings)
    warnings = len(report.findings) - errors
    told = f"{plain.count(len(report.rows), 'rehearsal')} in {report.seconds:.0f} s, policy: "
    told += plain.visible(report.policy)
    found = f"{plain.count(errors, 'error')}, {plain.count(warnings, 'warning')}"
    out.line(f"{told}; {found}", "bold red" if errors else "bold green")


def _finding(out: Output, report: Report, finding: Finding) -> None:
    word, style = LEVELS[Level.ERROR if report.counts_as_error(finding) else Level.WARNING]
    out.line()
    out.line(f"{word} {finding.code}: {plain.visible(finding.title)}", style)
    if finding.evidence:
        out.line(f"  seen   {plain.visible(finding.evidence)}")
    out.line(f"  mend   {plain.visible(finding.mend)}")
    shown = finding.seen_in[:SHOWN_IN]
    more = f" and {len(finding.seen_in) - SHOWN_IN} more" if len(finding.seen_in) > SHOWN_IN else ""
    out.line(f"  in     {plain.joined(shown)}{more}", "dim")
    if shown != [PLAIN]:
        out.line(f"  again  {plain.visible(report.again(next(one for one in shown if one != PLAIN)))}", "dim")
