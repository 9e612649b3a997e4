"""The report of a rehearsing: for people as a table, for machines as JSON, for CI as JUnit XML. Pure.

Rules:
* One row for each rehearsal answers the questions one has: resumed? work redone? what ran twice? approvals kept?
  credentials left alive? Then each finding once, with its proof and how to mend it.
* What was not rehearsed or could not be seen is said; nothing is counted as passed that was not looked at.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

from stepgrant.cli import plain
from stepgrant_broker.commands.rehearse.findings import Finding, Level
from stepgrant_broker.commands.rehearse.performing import Rehearsal
from stepgrant_broker.commands.rehearse.scenarios import PLAIN, Moment

COLUMNS: Final = ("rehearsal", "resumed", "redone", "ran twice", "approvals", "alive", "time", "result")
NOT_REACHED: Final = "not reached"


@dataclass(frozen=True, slots=True)
class Row:
    """What one rehearsal came to. `ran_twice`: tool names; `asked` and `answers`: questions to people."""

    id: str
    words: str
    resumed: str
    redone: tuple[str, ...]
    ran_twice: tuple[str, ...]
    asked: int
    asked_again: int
    alive: int
    seconds: float
    lives: tuple[str, ...]
    codes: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        approvals = f"{self.asked_again} asked again" if self.asked_again else ("kept" if self.asked else "-")
        return (
            self.words, self.resumed, plain.joined(self.redone, "no"), plain.joined(self.ran_twice, "-"), approvals,
            str(self.alive), f"{self.seconds:.1f} s", plain.joined(self.codes, "ok"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is said in the end. `strict`: warnings count as errors."""

    command: Sequence[str]
    policy: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    tools: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float
    strict: bool
    options: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the command ends with code 1."""
        return any(self.counts_as_error(one) for one in self.findings)

    def counts_as_error(self, finding: Finding) -> bool:
        """Warnings do with `--strict`."""
        return self.strict or finding.kind.level is Level.ERROR

    def again(self, row_id: str) -> str:
        """The command that repeats one rehearsal."""
        only = [] if row_id == PLAIN else ["--only", row_id]
        return shlex.join(["stepgrant", "rehearse", *self.options, *only, "--", *self.command])

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ok": not self.failed,
            "command": list(self.command),
            "policy": self.policy,
            "seconds": round(self.seconds, 1),
            "rehearsals": [_plain_row(row) for row in self.rows],
            "findings": [
                {"code": one.code, "level": one.kind.level.value, "subject": one.subject, "title": one.title,
                 "evidence": one.evidence, "mend": one.mend, "seen_in": one.seen_in,
                 "again": self.again(one.seen_in[0])}
                for one in self.findings
            ],
            "tools": list(self.tools),
            "notes": list(self.notes),
        }  # fmt: skip

    def junit(self) -> bytes:
        """For CI: one test case for each rehearsal, failed by the findings that it shows."""
        suite = ET.Element("testsuite", name="stepgrant rehearse", tests=str(len(self.rows)))
        failures = 0
        for row in self.rows:
            case = ET.SubElement(
                suite, "testcase", classname="stepgrant.rehearse", name=_xml(row.id), time=f"{row.seconds:.3f}"
            )
            for one in self.findings:
                if row.id not in one.seen_in:
                    continue
                text = f"{one.title}\n{one.evidence}\n-> {one.mend}\nagain: {self.again(row.id)}"
                if self.counts_as_error(one):
                    ET.SubElement(case, "failure", type=one.code, message=_xml(one.title)).text = _xml(text)
                else:
                    ET.SubElement(case, "system-out").text = _xml(f"warning {one.code}: {text}")
            if row.resumed == NOT_REACHED:
                ET.SubElement(case, "skipped", message="this boundary was not reached again")
            failures += case.find("failure") is not None
        suite.set("failures", str(failures))
        suite.set("time", f"{self.seconds:.3f}")
        data: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
        return data


def _xml(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "\n".join(plain.visible(line) for line in text.splitlines())


def row_of(one: Rehearsal, baseline: Rehearsal, findings: Sequence[Finding]) -> Row:
    """The row of one rehearsal."""
    mine = [finding for finding in findings if one.scenario.id in finding.seen_in]
    asked = Counter(
        event.step
        for events in one.standing.events.values()
        for event in events
        if event.type == "approval_requested"
    )  # fmt: skip
    ended = {run.id for run in one.standing.runs if run.state.ended}
    return Row(
        id=one.scenario.id,
        words=one.scenario.words,
        resumed=_resumed(one, is_plain=one is baseline),
        redone=tuple(sorted({finding.subject for finding in mine if finding.code == "work_redone"})),
        ran_twice=_twice(one),
        asked=len(asked),
        asked_again=sum(count - 1 for count in asked.values()),
        alive=sum(grant.run in ended for grant in one.standing.live),
        seconds=one.seconds,
        lives=tuple(life.shown for life in one.lives),
        codes=tuple(dict.fromkeys(finding.code for finding in mine)),
    )


def _resumed(one: Rehearsal, *, is_plain: bool) -> str:
    if one.scenario.moment is not None and not one.died:
        return NOT_REACHED
    if one.needs_person:
        return "by a person"
    if not one.over:
        return "no"
    return "-" if is_plain and len(one.lives) == 1 else "yes"


def _twice(one: Rehearsal) -> tuple[str, ...]:
    """Tools that were called more than once in one step, with their effect: only a `once` there is a mistake."""
    spared = one.killed_in if one.scenario.moment is Moment.AFTER_GRANT else None  # it died before its tool was called
    ran = [call for call in one.trace.calls if call.ran and not call.is_hook and call is not spared]
    runs = Counter((call.tool, call.effect, call.step) for call in ran)
    return tuple(sorted({f"{tool} ({effect})" for (tool, effect, _), count in runs.items() if count > 1}))


def tools_of(baseline: Rehearsal) -> tuple[dict[str, Any], ...]:
    """What the agent's tools are, as they were called in the plain run."""
    counts = Counter(call.tool for call in baseline.trace.calls if call.ran)
    return tuple(
        {
            "tool": name, "effect": call.effect, "declared": call.declared, "ids": call.has_id, "hook": call.hook,
            "calls": counts[name],
        }
        for name, call in baseline.trace.tools().items()
    )  # fmt: skip


def _plain_row(row: Row) -> dict[str, Any]:
    return {
        "id": row.id, "words": row.words, "resumed": row.resumed, "redone": list(row.redone),
        "ran_twice": list(row.ran_twice), "approvals": {"asked": row.asked, "again": row.asked_again},
        "alive": row.alive, "seconds": round(row.seconds, 2), "lives": list(row.lives), "findings": list(row.codes),
    }  # fmt: skip
