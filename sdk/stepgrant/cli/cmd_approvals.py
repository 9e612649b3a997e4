"""`stepgrant approval`: see exactly what is asked, and answer it.

What is approved is what was shown: the answer carries the digest of what is shown, computed here once more, and the
broker refuses another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

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
DETAILED: Final = 50
"""Of how many questions a list shows agent, run and arguments."""
EVERY = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.5, max=60, help="How often to look.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "approval", "Answer what policy asks people.")

    @command(app, "list", example="stepgrant approval list")
    def list_approvals(cli: Cli, status: STATUS = "pending", run: RUN = None) -> None:
        """List approvals, newest first; without --status those that wait for an answer. --json has no arguments."""
        from stepgrant.cli import approval_view
        from stepgrant.cli.cmd_runs import resolve

        with cli.broker() as broker:
            run_id = None if run is None else resolve(broker, run)
            wanted = None if status == "all" else status
            found = list(broker.pages("/v1/approvals", "approvals", status=wanted, run=run_id))
            rows = found if cli.out.json_mode else _detailed(broker, found)
            cli.out.emit({"approvals": found}, lambda: approval_view.table(cli.out, rows, broker, status=wanted))

    @command(app, "show", example="stepgrant approval show apr_01jd...")
    def show(cli: Cli, approval: APPROVAL) -> None:
        """Show exactly what is asked: tool, resource, arguments, effect, issuer, why, and the digest of all that."""
        from stepgrant.cli import approval_view

        with cli.broker() as broker:
            answer = _get(broker, approval)
            cli.out.emit(answer, lambda: approval_view.show(cli.out, answer, broker))

    @command(app, "watch", example="stepgrant approval watch\nstepgrant approval watch --json --run order-1729")
    def watch(cli: Cli, run: RUN = None, every: EVERY = 2.0) -> None:
        """Show questions as they come, and take answers to them where a person sits; Ctrl-C ends it.

        With --json: one line for each question, as `approval show` has it.
        """
        from stepgrant.cli import approval_watch
        from stepgrant.cli.cmd_runs import resolve

        run_id = None
        if run is not None:
            with cli.broker() as broker:
                run_id = resolve(broker, run)
        approval_watch.watch(cli, run_id, every, lambda broker, asked, verdict: _said(_decided(broker, asked, verdict)))

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


def _detailed(broker: People, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that wait with what they want and for whom, the newest first; each is a call, so only so many."""
    waiting = [one["id"] for one in found if one["status"] == "pending"][:DETAILED]
    whole = {approval: _get(broker, approval) for approval in waiting}
    return [whole.get(one["id"], one) for one in found]


def _answer(cli: Cli, approval: str, verdict: str, *, note: str | None, digest: str | None, yes: bool) -> None:
    from stepgrant.cli import approval_view

    with cli.broker() as broker:
        asked = _get(broker, approval)
        if asked["digest"] is not None and digest is not None and digest != asked["digest"]:
            raise CommandError(
                f"{approval} is about another action now (digest {asked['digest']}); look again", code="digest_mismatch"
            )
        if not cli.out.json_mode:
            approval_view.show(cli.out, asked, broker)
        _refuse_unshown(asked, verdict)
        cli.out.confirm(f"{verdict.capitalize()} exactly this?", yes=yes)
        answer = _decided(broker, asked, verdict, note)
    cli.out.emit(answer, lambda: cli.out.line(_said(answer)))


def _decided(broker: People, asked: dict[str, Any], verdict: str, note: str | None = None) -> dict[str, Any]:
    """Answer what was shown, and nothing else. Raises `CommandError`, and what the broker says."""
    from stepgrant.cli.people import segment

    _refuse_unshown(asked, verdict)
    body: dict[str, Any] = {"verdict": verdict, "digest": asked["digest"]}
    if note is not None:
        body["note"] = note
    return broker.post(f"/v1/approvals/{segment(asked['id'])}/decide", body)


def _refuse_unshown(asked: dict[str, Any], verdict: str) -> None:
    """Only what was seen whole is answered; but a no to what is no longer known does no harm."""
    from stepgrant.cli.asked import UNKEPT, mismatch

    if asked["digest"] is None:
        raise CommandError(f"what {asked['id']} asked about was erased; nobody can answer it", code="conflict")
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
