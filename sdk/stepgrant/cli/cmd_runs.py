"""`stepgrant run`: what runs there are, the timeline of one, and ending one that nobody may go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

if TYPE_CHECKING:
    from stepgrant.cli.people import People

SEARCHED: Final = 1000
"""So many of the newest runs are searched for a run's key."""
STATES: Final = ("open", "parked", "quarantined", "completed", "failed", "cancelled")

AGENT = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only runs of this agent.")]
STATE = Annotated[str | None, typer.Option("--state", metavar="STATE", help=f"Only these: {', '.join(STATES)}.")]
RESUMABLE = Annotated[
    bool, typer.Option("--resumable", help="Only those that somebody should go on with now, the oldest first.")
]
LIMIT = Annotated[int, typer.Option("--limit", min=1, max=SEARCHED, help="At most so many, the newest first.")]
RUN = Annotated[str, typer.Argument(metavar="RUN", help="A run's id (run_...), or its key.")]
NEWEST = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's id (run_...) or its key. Default: the newest run.")
]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "run", "List runs, and see what one did.")
    _add_looks(app)
    _add_acts(app)


def _add_looks(app: typer.Typer) -> None:
    @command(app, "list", example="stepgrant run list --state parked")
    def list_runs(
        cli: Cli, agent: AGENT = None, state: STATE = None, limit: LIMIT = 50, resumable: RESUMABLE = False
    ) -> None:
        """List runs, the newest first."""
        if state is not None and state not in STATES:
            raise CommandError(f"--state is one of {', '.join(STATES)}")
        with cli.broker() as broker:
            answer = broker.get("/v1/runs", agent=agent, state=state, limit=limit, resumable=resumable or None)
        cli.out.emit(answer, lambda: _table(cli, answer["runs"]))

    @command(app, "show", example="stepgrant run show\nstepgrant run show order-1729")
    def show(cli: Cli, run: NEWEST = None) -> None:
        """Tell what a run did: each step, decision, credential, approval, crash and resume, in order.

        What is told was checked: the entries are chained, and their head is signed with the broker's ledger key.
        """
        from stepgrant.cli import story_of

        with cli.broker() as broker:
            run_id = newest(broker) if run is None else resolve(broker, run)
            story_of.show_live(cli, broker, run_id)


def _add_acts(app: typer.Typer) -> None:
    @command(app, "cancel", example="stepgrant run cancel order-1729")
    def cancel(cli: Cli, run: RUN, yes: YES = False) -> None:
        """End a run for good; what it holds is taken back. Needs role operator."""
        with cli.broker() as broker:
            run_id = resolve(broker, run)
            cli.out.confirm(f"End {plain.visible(run)} ({run_id}) for good?", yes=yes)
            answer = broker.post(f"/v1/runs/{_segment(run_id)}/cancel")
        cli.out.emit(answer, lambda: cli.out.line(f"{run_id} is {plain.visible(answer['state'])}; this is final"))

    @command(app, "erase", example="stepgrant run erase order-1729")
    def erase(cli: Cli, run: RUN, yes: YES = False) -> None:
        """Destroy what stands behind the entries of an ended run: arguments, inputs, results. Needs role operator.

        The entries stay, and go on verifying; what they commit to can never be shown again, nor guessed.
        """
        with cli.broker() as broker:
            run_id = resolve(broker, run)
            cli.out.confirm(f"Erase all values of {plain.visible(run)} ({run_id}) for good?", yes=yes)
            answer = broker.post(f"/v1/runs/{_segment(run_id)}/erase")
        cli.out.emit(answer, lambda: cli.out.line(f"{run_id} is erased since {cli.out.when(answer['erased_at'])}"))

    @command(app, "release", example="stepgrant run release order-1729")
    def release(cli: Cli, run: RUN) -> None:
        """Let a run go on that was set aside after too many tries, or quarantined. Needs role operator."""
        with cli.broker() as broker:
            run_id = resolve(broker, run)
            answer = broker.post("/v1/quarantine/release", {"run": run_id})
        cli.out.emit(answer, lambda: cli.out.line(f"{run_id} is released: whoever works for its agent resumes it"))


def _segment(text: str) -> str:
    from stepgrant.cli.people import segment

    return segment(text)


def _table(cli: Cli, runs: list[dict[str, Any]]) -> None:
    cli.out.table(
        ("run", "key", "agent", "state", "epoch", "steps", "opened", "ended"),
        (
            (
                one["id"],
                one["key"],
                one["agent"],
                one["state"],
                one["epoch"],
                one["steps"],
                cli.out.when(one["opened_at"]),
                cli.out.when(one["ended_at"]),
            )
            for one in runs
        ),
        empty="no runs",
    )


def newest(broker: People) -> str:
    """The newest run's id. Raises `CommandError` (not_found)."""
    runs = broker.get("/v1/runs", limit=1)["runs"]
    if not runs:
        raise CommandError("there are no runs yet", code="not_found")
    return str(runs[0]["id"])


def resolve(broker: People, run: str) -> str:
    """The id of a run that is named by its id or its key. Raises `CommandError` (unknown_run, usage)."""
    if run.startswith("run_"):
        return run
    found: list[dict[str, Any]] = []
    for seen, one in enumerate(broker.pages("/v1/runs", "runs")):
        if seen >= SEARCHED:
            break
        if one["key"] == run:
            found.append(one)
    if not found:
        raise CommandError(
            f"no run with the key {run} among the newest {SEARCHED}; name it by its id", code="unknown_run"
        )
    if len(found) > 1:
        named = ", ".join(f"{one['id']} ({one['agent']})" for one in found[:5])
        raise CommandError(f"several runs have the key {run}: {named}; name one by its id")
    return str(found[0]["id"])
