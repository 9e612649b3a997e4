"""`stepgrant step`: one step of a run, and settling by hand what only a person can know of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError


class Verdict(StrEnum):
    """What a person found at the target."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


class Same(StrEnum):
    """What a call is that equals a completed step."""

    REPLAY = "replay"
    RUN = "run"


WORDS = {
    Verdict.DONE: "it HAPPENED",
    Verdict.NOT_DONE: "it did NOT happen and cannot any more",
    Verdict.UNKNOWN: "it is still not known",
}
RUN = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its key.")]
STEP = Annotated[str, typer.Argument(metavar="STEP", help="The step's key.")]
VERDICT = Annotated[
    Verdict,
    typer.Argument(
        help="done: it happened, complete the step. not_done: it did not, and nothing of it can still happen. "
        "unknown: looked, and still not known.",
    ),
]
SAME = Annotated[
    Same,
    typer.Argument(help="replay: it is the completed step once more, whose result counts. run: it is another call."),
]
NOTE = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why; it is recorded.")]
RESULT = Annotated[
    str | None,
    typer.Option("--result", metavar="JSON", help="With done: the result that the step returns from now on."),
]
EVIDENCE = Annotated[str | None, typer.Option("--evidence", metavar="TEXT", help="How you know; it is recorded.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "step", "See a step, and settle one that is in doubt or may be a repetition.")

    @command(app, "list", example="stepgrant step list order-1729")
    def list_steps(cli: Cli, run: RUN) -> None:
        """List the steps of a run in their order."""
        with cli.broker() as broker:
            path = _path(broker, run)
            steps = list(broker.pages(f"{path}/steps", "steps"))
        cli.out.emit({"steps": steps}, lambda: _table(cli, steps))

    @command(app, "show", example="stepgrant step show order-1729 charge")
    def show(cli: Cli, run: RUN, step: STEP) -> None:
        """Show one step: its action, state, attempt and result."""
        from stepgrant.cli.people import segment

        with cli.broker() as broker:
            answer = broker.get(f"{_path(broker, run)}/steps/{segment(step)}")
        cli.out.emit(answer, lambda: _show(cli, answer))

    @command(
        app,
        "reconcile",
        example="stepgrant step reconcile order-1729 charge done --evidence 'charge ch_7 is in the bank statement'",
    )
    def reconcile(
        cli: Cli,
        run: RUN,
        step: STEP,
        verdict: VERDICT,
        result: RESULT = None,
        evidence: EVIDENCE = None,
        yes: YES = False,
    ) -> None:
        """Say whether a step in doubt happened. Look at the target first: your word stands, and it is recorded.

        Needs the groups that could have approved the step, or role operator where policy named none.
        """
        body: dict[str, Any] = {"verdict": verdict.value}
        if result is not None:
            body["result"] = _result(result, verdict)
        if evidence is not None:
            body["evidence"] = evidence
        _reconcile(cli, run, step, body, yes=yes)

    _register_duplicate(app)


def _register_duplicate(app: typer.Typer) -> None:
    @command(app, "duplicate", example="stepgrant step duplicate order-1729 toolu_7 replay --note 'one was ordered'")
    def duplicate(cli: Cli, run: RUN, step: STEP, verdict: SAME, note: NOTE = None, yes: YES = False) -> None:
        """Say whether a call that came back under a new id is the completed step that it equals, or another call.

        Needs the groups that could have approved one of the two, or role operator where policy named none.
        """
        _duplicate(cli, run, step, {"verdict": verdict.value, **({} if note is None else {"note": note})}, yes=yes)


def _duplicate(cli: Cli, run: str, step: str, body: dict[str, Any], *, yes: bool) -> None:
    from stepgrant.cli.people import segment

    with cli.broker() as broker:
        path = f"{_path(broker, run)}/steps/{segment(step)}"
        known = broker.get(path)
        if not known["suspected"]:
            raise CommandError("nobody asks whether this step repeats another one", code="conflict")
        if not cli.out.json_mode:
            _show(cli, known)
        of = plain.visible(known["duplicate_of"])
        words = f"it IS {of} and is not done again" if body["verdict"] == "replay" else f"it is ANOTHER call than {of}"
        cli.out.confirm(f"Record that {words}?", yes=yes)
        answer = broker.post(f"{path}/duplicate", body)
    cli.out.emit(answer, lambda: cli.out.line(f"step {plain.visible(step)}: {plain.visible(answer['verdict'])}"))


def _reconcile(cli: Cli, run: str, step: str, body: dict[str, Any], *, yes: bool) -> None:
    from stepgrant.cli.people import segment

    with cli.broker() as broker:
        path = f"{_path(broker, run)}/steps/{segment(step)}"
        known = broker.get(path)
        if known["state"] != "in_doubt":
            raise CommandError(f"the step is {known['state']}, not in doubt", code="conflict")
        if not cli.out.json_mode:
            _show(cli, known)
        cli.out.confirm(f"Record that {WORDS[Verdict(body['verdict'])]}?", yes=yes)
        answer = broker.post(f"{path}/reconcile", {**body, "attempt": known["attempt"]})
    cli.out.emit(answer, lambda: cli.out.line(f"step {plain.visible(step)} is {plain.visible(answer['state'])} now"))


def _path(broker: Any, run: str) -> str:  # noqa: ANN401 - People, which is not imported before a command runs
    from stepgrant.cli.cmd_runs import resolve
    from stepgrant.cli.people import segment

    return f"/v1/runs/{segment(resolve(broker, run))}"


def _result(text: str, verdict: Verdict) -> Any:  # noqa: ANN401 - any JSON value
    from stepgrant.canonical import CanonicalError, loads

    if verdict is not Verdict.DONE:
        raise CommandError("--result belongs to the verdict done")
    try:
        return loads(text.encode("utf-8", "surrogatepass"))
    except CanonicalError as error:
        raise CommandError(f"--result is not JSON ({error.code})") from None


def _table(cli: Cli, steps: list[dict[str, Any]]) -> None:
    rows = (
        (s["position"], s["key"], s["tool"], s["resource"], s["effect"], s["state"], s["attempt"], s["epoch"])
        for s in steps
    )
    cli.out.table(("no", "step", "tool", "resource", "effect", "state", "attempt", "epoch"), rows, empty="no steps")


def _show(cli: Cli, step: dict[str, Any]) -> None:
    out = cli.out
    cli.out.line(f"step {plain.visible(step['key'])}", style="bold")
    out.facts(
        (
            ("tool", step["tool"]),
            ("resource", step["resource"]),
            ("effect", "none (recorded)" if step["recorded"] else step["effect"]),
            ("state", step["state"]),
            ("attempt", f"{step['attempt']}, under epoch {step['epoch']}"),
            ("parent", step["parent"]),
            ("approval", step["approval"]),
            ("grant", step["grant"]),
            ("idempotency key", step["idempotency_key"]),
            ("in doubt", _doubt(cli, step)),
            ("same as", step["same_as"]),
            ("may be again", step["duplicate_of"] if step["suspected"] else None),
            ("failure", step["failure"]),
            ("error", step["error"]),
            ("result", "not stored: it held a live secret, is not JSON, or is too large" if step["withheld"] else None),
        )
    )
    if step["result"] is not None:
        out.line("  result", style="dim")
        for line in plain.json_lines(step["result"]):
            out.line(f"    {line}")


def _doubt(cli: Cli, step: dict[str, Any]) -> str | None:
    if step["doubt"] is None:
        return None
    from stepgrant.cli._tell_steps import DOUBTS

    why = DOUBTS.get(step["doubt"], step["doubt"])
    return f"it may have happened: {why} (since {cli.out.when(step['doubt_since'])})"
