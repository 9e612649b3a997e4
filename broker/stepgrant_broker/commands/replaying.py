"""`stepgrant decision replay`: which decisions are meant, making them again, and the sum of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli import plain
from stepgrant.cli.cmd_runs import resolve
from stepgrant.cli.exits import CommandError
from stepgrant.errors import StepgrantError
from stepgrant_broker.commands import policy_files
from stepgrant_broker.commands.policy_files import Engine, opa_said
from stepgrant_broker.commands.recorded import (
    Broken,
    Source,
    TextOf,
    of_broker,
    of_receipt,
    runs_around,
    runs_since,
    since_ms,
)
from stepgrant_broker.domain.replaying import Recorded, Remade, recorded_terms
from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
from stepgrant_broker.policy.engines import Engines
from stepgrant_broker.policy.probes import proven
from stepgrant_broker.policy.replaying import Made, Replay, Texts, Verdict, change_of

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant.cli.output import Output
    from stepgrant.cli.people import People
    from stepgrant_broker.policy.bundle import Bundle

LISTED: Final = 1000
"""So many findings, and so many changes, are listed; all are counted."""
STEP: Final = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions, as they were asked for. `candidate`: a policy's folder; `receipt`: a file, and one of keys."""

    decision: str | None
    run: str | None
    since: str | None
    candidate: Path | None
    receipt: tuple[Path, Path] | None = None


@dataclass(slots=True)
class Report:
    """What came of it. Lists are bounded, counts are not."""

    candidate: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    groups: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, made: Made) -> None:
        """Count a decision; list it unless it is equal."""
        self.counts["decisions"] += 1
        self.counts[made.verdict.value] += 1
        self.counts["engine_assumed"] += made.engine_assumed
        if made.verdict is not Verdict.EQUAL and len(self.findings) < LISTED:
            self.findings.append(_finding(made))
        if self.candidate is not None and made.changes:
            self.groups[change_of(made)] += 1
            if len(self.changes) < LISTED:
                self.changes.append(_change(made))

    def add_broken(self, broken: Broken) -> None:
        """A chain that does not hold."""
        self.counts[Verdict.TAMPERED.value] += 1
        where = {"run": broken.run, "seq": broken.seq, "step": None, "decision_id": None}
        self.findings.append({**where, "verdict": "tampered", "why": "chain_broken", "detail": broken.what})

    @property
    def holds(self) -> bool:
        """Whether each decision that can be made again is as it is recorded, and there is one, or none is recorded."""
        bad = self.counts["different"] + self.counts["tampered"]
        return bad == 0 and (self.counts["equal"] > 0 or self.counts["decisions"] == 0)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        names = ("decisions", *(verdict.value for verdict in Verdict), "engine_assumed")
        value: dict[str, Any] = {name: self.counts[name] for name in names}
        value |= {"holds": self.holds, "findings": self.findings, "notes": self.notes}
        if self.candidate is None:
            return value
        groups = [
            {"from": before, "to": after, "reasons": why, "decisions": count}
            for (before, after, why), count in self.groups.most_common()
        ]
        changed = sum(self.groups.values())
        under = {"digest": self.candidate, "changed": changed, "groups": groups, "changes": self.changes}
        return {**value, "candidate": under}

    def show(self, out: Output) -> None:
        """For people."""
        rows = [(_place(one), one["decision_id"], one["verdict"], _said(one)) for one in self.findings]
        if rows:
            out.table(("where", "decision", "verdict", "why"), rows, empty="")
        for note in self.notes:
            out.line(plain.visible(note), style="dim")
        if self.candidate is not None:
            self._show_candidate(out)
        out.line(self._sum(), style="green" if self.holds else "bold red")

    def _show_candidate(self, out: Output) -> None:
        rows = [(count, before, after, why) for (before, after, why), count in self.groups.most_common()]
        out.table(("decisions", "recorded", "candidate", "its reasons"), rows, empty="the candidate changes nothing")
        for one in self.changes:
            terms = f" ({', '.join(one['terms'])})" if one["terms"] else ""
            before, after = (
                f"{one['from']} [{plain.joined(one['recorded_reasons'])}]",
                f"{one['to']} [{one['reasons']}]",
            )
            out.line(plain.visible(f"  {_place(one)} {one['tool']}: {before} -> {after}{terms}"))

    def _sum(self) -> str:
        counts = self.counts
        text = f"{plain.count(counts['decisions'], 'decision')}: {counts['equal']} as recorded"
        for name, words in (
            ("different", "different"),
            ("tampered", "tampered with"),
            ("not_replayable", "not replayable"),
        ):
            text += f", {counts[name]} {words}" if counts[name] else ""
        if counts["engine_assumed"]:
            text += f" ({counts['engine_assumed']} of opening and resuming, whose engine is not recorded)"
        return text


def _place(one: dict[str, Any]) -> str:
    chain = one["run"] or "the tenant's own chain"
    return (
        chain + (f" entry {one['seq']}" if one["seq"] is not None else "") + (f" {one['step']}" if one["step"] else "")
    )


def _said(one: dict[str, Any]) -> str:
    text = str(one["why"]) + (f": {one['detail']}" if one["detail"] else "")
    if one.get("again") is None:
        return text
    recorded, again = one["recorded"], one["again"]
    text += f"; recorded {recorded['effect']} [{plain.joined(recorded['reasons'])}]"
    text += f", now {again['effect']} [{plain.joined(again['reasons'])}]"
    for term in one["terms"]:
        text += f"; {term['name']}: recorded {plain.json_line(term['recorded'], 120)}"
        text += f", now {plain.json_line(term['again'], 120)}"
    return text


def _where(known: Recorded) -> dict[str, Any]:
    return {"run": known.run, "seq": known.seq, "step": known.step, "decision_id": known.decision_id}


def _finding(made: Made) -> dict[str, Any]:
    known, again = made.recorded, made.again
    terms = recorded_terms(known) if made.terms else {}
    return {
        **_where(known),
        "verdict": made.verdict.value,
        "why": made.why.value if made.why is not None else None,
        "detail": made.detail,
        "policy_revision": known.revision,
        "engine": known.engine,
        "recorded": {"effect": known.effect, "reasons": list(known.reasons)},
        "again": None if again is None else {"effect": again.effect, "reasons": list(again.reasons)},
        "terms": [
            {"name": name, "recorded": terms[name], "again": again.terms[name] if again is not None else None}
            for name in made.terms
        ],
    }


def _change(made: Made) -> dict[str, Any]:
    known = made.recorded
    before, after, reasons = change_of(made)
    return {
        **_where(known),
        "tool": (known.input or {}).get("action", {}).get("tool"),
        "from": before,
        "to": after,
        "recorded_reasons": list(known.reasons),
        "reasons": reasons,
        "terms": list(_moved(made.again, made.would)),
    }


def _moved(before: Remade | None, after: Remade | None) -> Iterator[str]:
    if before is not None and after is not None and before.effect == after.effect:
        names = sorted(before.terms.keys() | after.terms.keys())
        yield from (name for name in names if before.terms.get(name) != after.terms.get(name))


def candidate_of(folder: Path) -> Bundle:
    """The candidate, proven as an activation would. Raises `PolicyInvalid`, `CommandError`."""
    _, bundle = policy_files.read(folder)
    proven(bundle, "candidate", deadline_s=PROBE_DEADLINE_S).end()
    return bundle


def replay(cli: Cli, wanted: Wanted) -> Report:
    """Make the wanted decisions again. Raises `CommandError`, `PolicyInvalid`, `ReceiptError`, the broker's errors."""
    since = None if wanted.since is None else since_ms(wanted.since)
    candidate = None if wanted.candidate is None else candidate_of(wanted.candidate)
    report = Report(None if candidate is None else candidate.digest)
    with Engines(policy_files.tool_of(Engine.AUTO)) as engines, opa_said():
        if wanted.receipt is not None:
            source, verified = of_receipt(*wanted.receipt)
            _make(Replay(engines, Texts(verified.policies.get), candidate), iter([source]), wanted, since, report)
        else:
            with cli.broker() as broker:
                sources = _sources(cli, broker, wanted, since, report)
                _make(Replay(engines, Texts(TextOf(broker)), candidate), sources, wanted, since, report)
    if wanted.decision is not None and not report.counts["decisions"] and not report.findings:
        raise CommandError(f"no decision {wanted.decision} is recorded", code="not_found")
    return report


def _make(maker: Replay, sources: Iterator[Source], wanted: Wanted, since: int | None, report: Report) -> None:
    for source in sources:
        for batch in source.batches():
            meant = [one for one in batch if _is_meant(one, wanted.decision, since)]
            for made in maker.make(meant, beside=batch):
                report.add(made)
            if wanted.decision is not None and meant:
                return
        if source.broken is not None:
            report.add_broken(source.broken)


def _is_meant(one: Recorded, decision: str | None, since: int | None) -> bool:
    return (decision is None or one.decision_id == decision) and (since is None or one.ts >= since)


def _sources(cli: Cli, broker: People, wanted: Wanted, since: int | None, report: Report) -> Iterator[Source]:
    """The chains to read: one run's, or every run's and the tenant's own."""
    if wanted.run is not None:
        yield of_broker(broker, resolve(broker, wanted.run))
        return
    runs = runs_since(broker, since) if wanted.decision is None else runs_around(broker, wanted.decision)
    show = cli.out.terminal and sys.stderr.isatty()
    for number, run in enumerate(runs):
        if show and number % STEP == 0:
            sys.stderr.write(f"\r{plain.count(number, 'run')}, {report.counts['decisions']} decisions ")
            sys.stderr.flush()
        yield of_broker(broker, run)
    if show:
        sys.stderr.write("\r\x1b[K")
    yield from _tenants_own(broker, report)


def _tenants_own(broker: People, report: Report) -> Iterator[Source]:
    """The chain of what was never a run. Only an operator may read it."""
    try:
        broker.get("/v1/ledger/decisions", limit=1)
    except StepgrantError as error:
        if error.code != "forbidden":
            raise
        report.notes.append("refused openings stand in the tenant's own chain, which only an operator can read")
        return
    yield of_broker(broker, None)
