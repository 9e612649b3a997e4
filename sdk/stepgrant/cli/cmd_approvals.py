"""`stepgrant approval`: see exactly what is asked, and answer it.

What is approved is what was shown: the answer carries the digest of what is shown, computed here once more, and the
broker refuses another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

if TYPE_CHECKING:
    from stepgrant.cli.people import People

APPROVAL = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id (apr_...).")]
STATUS = Annotated[
    str | None, typer.Option("--status", help="Only these: pending, approved, denied, expired, consumed, void, or all.")
]
RUN = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run (id or key).")]
NOTE = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note that is recorded with the answer.")]
DIGEST = Annotated[
    str | None, typer.Option("--digest", help="The digest that you were shown; refused if it is another one now.")
]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "approval", "Answer what policy asks people.")

    @command(app, "list", example="stepgrant approval list")
    def list_approvals(cli: Cli, status: STATUS = "pending", run: RUN = None) -> None:
        """List approvals; without --status those that wait for an answer."""
        from stepgrant.cli.cmd_runs import resolve

        with cli.broker() as broker:
            run_id = None if run is None else resolve(broker, run)
            wanted = None if status == "all" else status
            found = list(broker.pages("/v1/approvals", "approvals", status=wanted, run=run_id))
        cli.out.emit({"approvals": found}, lambda: _table(cli, found))

    @command(app, "show", example="stepgrant approval show apr_01jd...")
    def show(cli: Cli, approval: APPROVAL) -> None:
        """Show exactly what is asked: tool, resource, arguments, effect, issuer, why, and the digest of all that."""
        with cli.broker() as broker:
            answer = _get(broker, approval)
        cli.out.emit(answer, lambda: _show(cli, answer))

    @command(app, "approve", example="stepgrant approval approve apr_01jd... --note 'checked with Ada'")
    def approve(cli: Cli, approval: APPROVAL, note: NOTE = None, digest: DIGEST = None, yes: YES = False) -> None:
        """Say yes to the action that is shown, and to no other. Needs role approver."""
        _answer(cli, approval, "approve", note=note, digest=digest, yes=yes)

    @command(app, "deny", example="stepgrant approval deny apr_01jd... --note 'not on a Friday'")
    def deny(cli: Cli, approval: APPROVAL, note: NOTE = None, digest: DIGEST = None, yes: YES = False) -> None:
        """Say no. It stands for this action in this run. Needs role approver."""
        _answer(cli, approval, "deny", note=note, digest=digest, yes=yes)


def _get(broker: People, approval: str) -> dict[str, Any]:
    from stepgrant.cli.people import segment

    return broker.get(f"/v1/approvals/{segment(approval)}")


def _answer(cli: Cli, approval: str, verdict: str, *, note: str | None, digest: str | None, yes: bool) -> None:
    from stepgrant.cli.people import segment

    with cli.broker() as broker:
        asked = _get(broker, approval)
        if asked["digest"] is None:
            raise CommandError(f"what {approval} asked about was erased; nobody can answer it", code="conflict")
        if digest is not None and digest != asked["digest"]:
            raise CommandError(
                f"{approval} is about another action now (digest {asked['digest']}); look again", code="digest_mismatch"
            )
        if not cli.out.json_mode:
            _show(cli, asked)
        _refuse_unshown(asked, verdict)
        cli.out.confirm(f"{verdict.capitalize()} exactly this?", yes=yes)
        body: dict[str, Any] = {"verdict": verdict, "digest": asked["digest"]}
        if note is not None:
            body["note"] = note
        answer = broker.post(f"/v1/approvals/{segment(approval)}/decide", body)
    cli.out.emit(answer, lambda: cli.out.line(_said(answer)))


def _refuse_unshown(asked: dict[str, Any], verdict: str) -> None:
    """Only what was seen whole is answered; but a no to what is no longer known does no harm."""
    from stepgrant.cli.asked import UNKEPT, mismatch

    why = mismatch(asked)
    if why is not None and (why != UNKEPT or verdict != "deny"):
        raise CommandError(
            f"{asked['id']}: the digest is not that of what is shown ({why}); nothing was answered",
            code="digest_mismatch",
        )


def _said(answer: dict[str, Any]) -> str:
    status, quorum = answer["status"], answer["quorum"]
    if status == "pending":
        missing = quorum - sum(1 for one in answer["answers"] if one["verdict"] == "approve")
        return f"recorded; {plain.count(missing, 'more person', 'more people')} must approve"
    return f"{plain.visible(answer['id'])} is {plain.visible(status)}"


def _table(cli: Cli, found: list[dict[str, Any]]) -> None:
    rows = (
        (a["id"], a["status"], a["tool"], a["effect"], a["step"], a["run"], ", ".join(a["groups"]) or "any approver",
         cli.out.when(a["requested_at"]), cli.out.when(a["answer_by"]))
        for a in found
    )  # fmt: skip
    columns = ("approval", "status", "tool", "effect", "step", "run", "asks", "asked", "answer by")
    cli.out.table(columns, rows, empty="nobody is asked")


def _show(cli: Cli, asked: dict[str, Any]) -> None:
    from stepgrant.cli import asked as about
    from stepgrant.cli._tell_approvals import WHY_AGAIN

    out = cli.out
    out.line(f"approval {plain.visible(asked['id'])}", style="bold")
    again = asked["why_again"]
    out.facts(
        (
            ("status", asked["status"]),
            ("run", _run(asked)),
            ("step", asked["step"]),
            ("why", plain.joined(asked["reasons"])),
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


def _run(asked: dict[str, Any]) -> str:
    known = asked.get("run_facts") or {}
    more = [str(known[name]) for name in ("agent", "key", "state") if known.get(name)]
    return f"{asked['run']} ({', '.join(more)})" if more else str(asked["run"])


def _answers(asked: dict[str, Any]) -> str:
    return ", ".join(f"{one['verdict']} by {one['operator']}" for one in asked["answers"])
