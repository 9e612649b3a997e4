"""`stepgrant policy preflight`: what a candidate would say to the next action of every run that is parked right now.

Rules: only reads, so no entry, lease or grant comes of it; both policies answer on the same inputs and the same engine;
what a run asks next is worked out on this side, from entries that were checked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrant import canonical
from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands import policy_files
from stepgrant_broker.commands.policy_files import Engine, opa_said
from stepgrant_broker.commands.recorded import TextOf, of_broker
from stepgrant_broker.commands.replaying import candidate_of
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.next_actions import NextAction, Unasked, fates, next_actions, weighed
from stepgrant_broker.policy.engines import Engines
from stepgrant_broker.policy.replaying import IMPOSSIBLE, Texts, TextUnusable, decision_in

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant.cli.output import Output
    from stepgrant.cli.people import People
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.policy.opa_tool import ToolAnswer


@dataclass(slots=True)
class Report:
    """What would be said, now and under the candidate."""

    active: str
    candidate: str
    engine: str
    at: int
    runs: int = 0
    actions: list[dict[str, Any]] = field(default_factory=list)
    unasked: list[dict[str, Any]] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> list[dict[str, Any]]:
        """The actions that the candidate decides otherwise, or on other terms."""
        return [one for one in self.actions if one["changed"]]

    @property
    def voided(self) -> list[dict[str, Any]]:
        """Questions and answers that stand now, and would be void or of no use under the candidate."""
        return [
            {"run": one["run"], "step": one["step"], **fate}
            for one in self.actions
            for fate in one["approvals"]
            if fate["now"] == "kept" and fate["candidate"] in {"void", "refused"}
        ]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "active": self.active,
            "candidate": self.candidate,
            "engine": self.engine,
            "at": self.at,
            "runs": self.runs,
            "actions": self.actions,
            "changed": len(self.changed),
            "groups": [
                {"from": before, "to": after, "actions": count}
                for (before, after), count in _groups(self.changed).most_common()
            ],
            "voided": self.voided,
            "not_asked": self.unasked,
            "broken": self.broken,
        }

    def show(self, out: Output) -> None:
        """For people."""
        rows = [
            (one["run_key"], one["step"], one["tool"], _words(one["now"]), _words(one["candidate"]))
            for one in self.changed
        ]
        empty = "the candidate changes no next action"
        out.table(("run", "step", "tool", "now", "with the candidate"), rows, empty=empty)
        for one in self.voided:
            why = f" ({one['why']})" if one["why"] else ""
            words = "would be void, and asked again" if one["candidate"] == "void" else "would be of no use"
            out.line(plain.visible(f"{one['approval']} ({one['status']}) of step {one['step']} {words}{why}"))
        for one in self.unasked:
            text = f"{one['run']} {one['step']}: policy is not asked ({one['why']})"
            out.line(plain.visible(text), style="dim")
        for one in self.broken:
            out.line(plain.visible(f"{one['run']}: its chain does not hold: {one['what']}"), style="bold red")
        actions, runs = plain.count(len(self.actions), "next action"), plain.count(self.runs, "parked run")
        text = f"{actions} of {runs}: {len(self.changed)} would be decided otherwise by {self.candidate}"
        out.line(f"{text}, asked on {self.engine}", style="bold")


def _groups(changed: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((one["now"]["effect"], one["candidate"]["effect"]) for one in changed)


def _words(said: dict[str, Any]) -> str:
    return f"{said['effect']} [{plain.joined(said['reasons'])}]"


def preflight(cli: Cli, folder: Path, engine: Engine) -> Report:
    """Ask both policies. Raises `CommandError`, `PolicyInvalid`, and the errors of the broker."""
    candidate = candidate_of(folder)
    with cli.broker() as broker, Engines(policy_files.tool_of(engine)) as engines, opa_said():
        revision = _active(broker)
        try:
            active = Texts(TextOf(broker)).bundle(revision)
        except TextUnusable as unusable:
            raise CommandError(unusable.detail, code="check_failed") from None
        now = int(broker.get("/v1/runs", limit=1)["now"])
        report = Report(revision, candidate.digest, engines.preferred, now)
        for row in broker.pages("/v1/runs", "runs", state="parked"):
            _of_run(broker, str(row["id"]), engines, (active, candidate), report)
    return report


def _active(broker: People) -> str:
    for policy in broker.get("/v1/policies")["policies"]:
        if policy["active"]:
            return str(policy["revision"])
    raise CommandError("this broker has no active policy", code="policy_unavailable")


def _of_run(broker: People, run: str, engines: Engines, policies: tuple[Bundle, Bundle], report: Report) -> None:
    source = of_broker(broker, run)
    for _ in source.batches():
        # Each page is folded and let go; only the run as it stands is needed.
        continue
    if source.broken is not None:
        report.broken.append({"run": run, "seq": source.broken.seq, "what": source.broken.what})
        return
    report.runs += 1
    try:
        found = list(next_actions(source.decisions.view, source.newest, source.decisions.bindings, report.at))
    except IMPOSSIBLE as error:
        what = f"what was decided on does not hold together ({type(error).__name__})"
        report.broken.append({"run": run, "seq": None, "what": what})
        return
    asked = [one for one in found if isinstance(one, NextAction)]
    report.unasked += [_unasked(one) for one in found if isinstance(one, Unasked)]
    inputs = [canonical.dumps(dict(one.document)) for one in asked]
    now, then = (engines.decide(bundle, report.engine, inputs) for bundle in policies)
    report.actions += [_compared(*each) for each in zip(asked, now, then, strict=True)]


def _unasked(one: Unasked) -> dict[str, Any]:
    return {"run": one.run.id, "run_key": one.run.key, "step": one.step, "tool": one.tool, "why": one.why}


def _compared(action: NextAction, now: ToolAnswer, then: ToolAnswer) -> dict[str, Any]:
    before, after = _said(action, now), _said(action, then)
    kept = {one["approval"]: one for one in before.pop("fates")}
    approvals = [
        {"approval": one["approval"], "status": one["status"], "now": kept[one["approval"]]["fate"] if kept else None,
         "candidate": one["fate"], "why": one["why"]}
        for one in after.pop("fates")
    ]  # fmt: skip
    return {
        "run": action.run.id,
        "run_key": action.run.key,
        "agent": action.run.agent,
        "waits_for": action.run.park_reason,
        "step": action.step,
        "tool": action.tool,
        "now": before,
        "candidate": after,
        "changed": before != after,
        "approvals": approvals,
    }


def _said(action: NextAction, answer: ToolAnswer) -> dict[str, Any]:
    """What the answer would come to; no decision is no permission."""
    try:
        said = decision_in(answer)
    except PolicyUnavailable as closed:
        return {"effect": "no decision", "reasons": [closed.detail], "terms": {}, "fates": []}
    remade = weighed(action, said)
    return {
        "effect": remade.effect,
        "reasons": list(remade.reasons),
        "terms": dict(remade.terms),
        "fates": [
            {"approval": one.approval, "status": one.status, "fate": one.fate, "why": one.why}
            for one in fates(action, said)
        ],
    }
