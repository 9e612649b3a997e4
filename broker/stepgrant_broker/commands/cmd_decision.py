"""`stepgrant decision`: make recorded decisions again, under the policy of then or under one that you think about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said

DECISION = Annotated[str | None, typer.Argument(metavar="DECISION", help="A decision's id; --run makes it quick.")]
RUN = Annotated[str | None, typer.Option("--run", metavar="RUN", help="All decisions of this run (id or key).")]
SINCE = Annotated[
    str | None, typer.Option("--since", metavar="DATE", help="All decisions since then, e.g. 2026-11-20 (UTC).")
]
CANDIDATE = Annotated[
    Path | None,
    typer.Option("--candidate", metavar="FOLDER", help="Also decide by the policy in this folder; list what changes."),
]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "decision", "Make recorded decisions again.")

    @command(
        app,
        "replay",
        example="stepgrant decision replay --run order-1729\nstepgrant decision replay --since 2026-11-20 --json\n"
        "stepgrant decision replay --since 2026-11-20 --candidate policy",
    )
    def replay(
        cli: Cli, decision: DECISION = None, run: RUN = None, since: SINCE = None, candidate: CANDIDATE = None
    ) -> None:
        """Make recorded decisions again: recorded input and time, recorded text, the engine that made them.

        Each must come out as it is recorded: effect, reasons, and what was granted or asked. Exit code 1 if one does
        not, if input, text or chain were changed, or if nothing could be made again. Inputs that were erased are
        listed as not replayable. With --candidate: what that policy would have decided otherwise.
        """
        from stepgrant_broker.commands import replaying

        if decision is None and run is None and since is None:
            raise CommandError("name a DECISION, --run RUN or --since DATE")
        with said():
            wanted = replaying.Wanted(decision, run, since, candidate)
            report = replaying.replay(cli, wanted)
        cli.out.emit(report.as_json(), lambda: report.show(cli.out))
        if not report.holds:
            raise typer.Exit(1)
