"""A question to people on the screen: as one row of a list, and whole. Values of others are made visible.

`broker` gives the titles of reasons (`reason_titles.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli import asked as about
from stepgrant.cli import plain
from stepgrant.cli._tell_approvals import WHY_AGAIN
from stepgrant.cli.reason_titles import Titles, told

if TYPE_CHECKING:
    from stepgrant.cli.output import Output
    from stepgrant.cli.people import People

ARGS_SHOWN: Final = 80
"""Characters of the arguments in a list; `approval show` has them whole."""


def table(out: Output, found: Sequence[Mapping[str, Any]], broker: People, *, status: str | None) -> None:
    """A list of them, each as listed or with all that `approval show` knows. `status`: all have this one."""
    waiting = status == "pending"
    columns = ("approval", *(() if waiting else ("status",)), "agent", "run", "step", "wants", "why", "asks", "asked",
               "answer by")  # fmt: skip
    titles = Titles(broker)
    rows = ((a["id"], *(() if waiting else (a["status"],)), *_row(out, a, titles)) for a in found)
    out.table(columns, rows, empty="nobody is asked")


def _row(out: Output, asked: Mapping[str, Any], titles: Titles) -> tuple[object, ...]:
    known = asked.get("run_facts") or {}
    people = ", ".join(asked["groups"]) or "any approver"
    return (
        known.get("agent", ""), known.get("key") or asked["run"], asked["step"], wants(asked),
        told(asked["reasons"], titles.of(asked)), people if asked["quorum"] == 1 else f"{asked['quorum']} of {people}",
        out.when(asked["requested_at"]), out.when(asked["answer_by"]),
    )  # fmt: skip


def wants(asked: Mapping[str, Any]) -> str:
    """The action in a few words: its tool, and what fits of resource and arguments."""
    action, resume = asked.get("action") or {}, asked.get("resume")
    if resume is not None:
        verb = "take over" if asked["tool"] == "stepgrant.run.takeover" else "resume"
        return f"{verb}: {resume['subject']}"
    resource, args = action.get("resource"), action.get("args")
    parts = [str(asked["tool"])]
    parts += [f"on {resource}"] if resource is not None else []
    parts += [plain.json_line(args, ARGS_SHOWN)] if args else []
    return " ".join(parts)


def show(out: Output, asked: Mapping[str, Any], broker: People) -> None:
    """All that an answer would be bound to, and whether its digest is that of what is shown."""
    out.line(f"approval {plain.visible(asked['id'])}", style="bold")
    again = asked["why_again"]
    out.facts(
        (
            ("status", asked["status"]),
            ("run", _run(asked)),
            ("step", asked["step"]),
            ("why", told(asked["reasons"], Titles(broker).of(asked))),
            ("explained", _explained(asked)),
            ("asked again", None if again is None else WHY_AGAIN.get(again, again)),
            ("asks", f"{asked['quorum']} of {plain.joined(asked['groups'], 'any approver')}"),
            ("asked", out.when(asked["requested_at"])),
            ("answer by", out.when(asked["answer_by"])),
            ("usable for", f"{plain.span(asked['valid_for_ms'])} once the run is back"),
            ("answers", _answers(asked) or None),
        )
    )
    out.line(about.heading(asked), style="bold")
    out.facts(about.facts(asked))
    for name, lines in about.values(asked):
        out.line(f"  {name}", style="dim")
        for line in lines:
            out.line(f"    {line}")
    why = about.mismatch(asked)
    checked = "it is the digest of exactly this" if why is None else f"NOT the digest of what is shown: {why}"
    out.facts((("digest", asked["digest"]), ("checked", checked)))


def _run(asked: Mapping[str, Any]) -> str:
    known = asked.get("run_facts") or {}
    more = [str(known[name]) for name in ("agent", "key", "state") if known.get(name)]
    return f"{asked['run']} ({', '.join(more)})" if more else str(asked["run"])


def _answers(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['verdict']} by {one['operator']}" for one in asked["answers"])


def _explained(asked: Mapping[str, Any]) -> str:
    # The agent chose the step's key, and people paste what they read.
    return f"`stepgrant policy explain {asked['run']} {shlex.quote(asked['step'])}` says by which rules and values"
