"""Decisions made again: on an input from a file or from the ledger, with a policy from a folder or from the ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrant import canonical, receipt
from stepgrant.cli import plain
from stepgrant.cli.cmd_runs import resolve
from stepgrant.cli.exits import CommandError
from stepgrant.cli.people import segment

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant.cli.people import People
    from stepgrant_broker.domain.decisions import Decision
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.policy.explain import Explanation, Reason, ReasonRule
    from stepgrant_broker.policy.opa_tool import OpaTool

VALUE_LIMIT = 160


def input_of(cli: Cli, file: Path | None, run: str | None, step: str | None) -> bytes:
    """The input document: of a file, or as it was recorded. Raises `CommandError`."""
    if (file is None) == (run is None):
        raise CommandError("name an input: --input FILE, or --run RUN (and --step STEP) for a recorded one")
    if run is None:
        return _from_file(file or Path("-"))
    with cli.broker() as broker:
        recorded = recorded_decision(broker, run, step, None)
    return canonical.dumps(_input(recorded))


def _from_file(file: Path) -> bytes:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", code="not_found") from None
    try:
        return canonical.dumps(canonical.loads(data))
    except canonical.CanonicalError as error:
        raise CommandError(f"{file} is not strict JSON ({error.code})") from None


def _input(recorded: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    if recorded["input"] is None:
        raise CommandError("the input of this decision was erased", code="not_found")
    return recorded["input"]


def decide(bundle: Bundle, policy_input: bytes, tool: OpaTool | None = None) -> dict[str, Any]:
    """What the policy answers (on OPA, with a `tool`), after the broker's own reading of it.

    Raises `PolicyInvalid`, `PolicyUnavailable`, `CommandError` when the tool fails.
    """
    from stepgrant_broker.commands.policy_files import opa_said
    from stepgrant_broker.domain.errors import PolicyUnavailable
    from stepgrant_broker.policy.contract import parse
    from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
    from stepgrant_broker.policy.probes import proven
    from stepgrant_broker.policy.rego import ENGINE

    engine = proven(bundle, "eval", deadline_s=PROBE_DEADLINE_S)
    try:
        said = engine.ask(policy_input, seconds=PROBE_DEADLINE_S)
    finally:
        engine.end()
    raw, error, answered_by = said.raw, said.error, ENGINE
    if tool is not None:
        with opa_said():
            (told,) = tool.decide(bundle, [policy_input])
        raw, error, answered_by = told.raw, told.error, tool.engine
    if error is not None:
        raise PolicyUnavailable(error)
    decision = parse(raw)
    answer = None if raw is None else canonical.loads(raw)
    return {"decision": answer, "effect": effect(decision), "reasons": list(decision.reasons), "digest": bundle.digest,
            "engine": answered_by}  # fmt: skip


def effect(decision: Decision) -> str:
    """The word for a decision."""
    from stepgrant_broker.domain.decisions import effect_of

    return effect_of(decision)


def policy_text(broker: People, revision: str) -> dict[str, Any]:
    """A policy with its files, by its revision or its counter. Raises `CommandError` (not_found)."""
    if ":" not in revision:
        known = broker.get("/v1/policies")["policies"]
        found = [one["revision"] for one in known if str(one["revision"]).partition(":")[0] == revision]
        if not found:
            raise CommandError(f"no policy {revision} was activated here", code="not_found")
        revision = str(found[0])
    return broker.get(f"/v1/policies/{segment(revision)}")


def recorded_decision(broker: People, run: str, step: str | None, decision: str | None) -> dict[str, Any]:
    """A recorded decision with its input: by its id, else the newest of the step, else the newest of the run."""
    run_id = segment(resolve(broker, run))
    if decision is None:
        data = broker.get(f"/v1/runs/{run_id}/receipt")
        events = receipt.verify(data, broker.get("/v1/ledger/keys")).events
        made = [one for one in events if one.type == "decision" or (step is None and one.part("decision"))]
        ids = [one.part("decision")["decision_id"] for one in made if step in {None, one.step}]
        if not ids:
            what = f"step {step} of " if step else ""
            raise CommandError(f"no decision about {what}run {run} is recorded", code="not_found")
        decision = str(ids[-1])
    return broker.get(f"/v1/runs/{run_id}/decisions/{segment(decision)}")


def explain(cli: Cli, run: str, step: str | None, decision: str | None) -> None:
    """Make a recorded decision again with its recorded policy, and say which rules made it."""
    from stepgrant_broker.policy import bundle
    from stepgrant_broker.policy.explain import explain as made_again

    with cli.broker() as broker:
        recorded = recorded_decision(broker, run, step, decision)
        policy = policy_text(broker, recorded["policy_revision"])
    read = bundle.from_files(policy["text"])
    if read.digest != str(recorded["policy_revision"]).partition(":")[2]:
        raise CommandError("the recorded policy is not the one that its revision names", code="check_failed")
    explanation = made_again(read, canonical.dumps(_input(recorded)))
    cli.out.emit(_as_json(recorded, explanation), lambda: _show(cli, recorded, explanation))


def _as_json(recorded: dict[str, Any], explanation: Explanation) -> dict[str, Any]:
    return {
        "recorded": {name: value for name, value in recorded.items() if name != "input"},
        "policy_said": {"effect": effect(explanation.decision), "reasons": list(explanation.decision.reasons)},
        "reasons": [
            {
                "code": reason.code,
                "rules": [
                    {
                        "file": rule.file,
                        "line": rule.line,
                        "rule": rule.rule,
                        "title": rule.title,
                        "description": rule.description,
                        "facts": [{"name": f.name, "value": f.value, "defined": f.defined} for f in rule.facts],
                    }
                    for rule in reason.rules
                ],
            }
            for reason in explanation.reasons
        ],
        "unmet": [{"code": u.code, "file": u.file, "line": u.line, "text": u.text} for u in explanation.unmet],
    }


WORDS = {"allow": "ALLOWED", "deny": "DENIED", "require_approval": "ASKED A PERSON"}


def _show(cli: Cli, recorded: dict[str, Any], explanation: Explanation) -> None:
    out, said = cli.out, effect(explanation.decision)
    what = f"step {plain.visible(recorded['step'])}" if recorded["step"] else "opening the run"
    out.line(f"{what}: policy {WORDS[said]}", style="bold")
    out.facts(
        (("decision", recorded["decision_id"]), ("policy", recorded["policy_revision"]), ("engine", recorded["engine"]))
    )
    for reason in explanation.reasons:
        _show_reason(cli, reason)
    if explanation.unmet:
        out.line("  No rule allowed it. The allowing rules, and the last line of each that was tried:")
        for unmet in explanation.unmet:
            tried = f"{unmet.file}:{unmet.line}: {unmet.text}" if unmet.line else f"{unmet.file}: nothing of it"
            out.line(f"    {plain.visible(unmet.code)}: {plain.visible(tried)}")
    if recorded["effect"] != said:
        out.line(f"  recorded is {WORDS[recorded['effect']]}: {_why_other(recorded['reasons'])}", style="yellow")


def _why_other(reasons: list[str]) -> str:
    answered = [one.partition(":")[2] for one in reasons if one.startswith("approved:")]
    if answered:
        return f"approval {plain.joined(answered)} had answered it"
    return f"{plain.joined(reasons)}; the broker closed what policy had left open"


def _show_reason(cli: Cli, reason: Reason) -> None:
    cli.out.line(f"  because {plain.visible(reason.code)}", style="bold")
    if not reason.rules:
        cli.out.line("    no rule of its own says this; the policy computed it, or it is the default")
    for rule in reason.rules:
        _show_rule(cli, rule)


def _show_rule(cli: Cli, rule: ReasonRule) -> None:
    title = f"{rule.title}: " if rule.title else ""
    about = " ".join(rule.description.split())
    cli.out.line(f"    {plain.visible(title)}{plain.visible(about)}")
    cli.out.line(f"    {plain.visible(rule.file)}:{rule.line} ({plain.visible(rule.rule)})", style="dim")
    for fact in rule.facts:
        value = plain.json_line(fact.value, VALUE_LIMIT) if fact.defined else "not there"
        cli.out.line(f"      {plain.visible(fact.name)} = {value}")
