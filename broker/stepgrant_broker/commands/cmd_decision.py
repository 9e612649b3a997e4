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
RECEIPT = Annotated[
    Path | None, typer.Option("--receipt", metavar="FILE", help="The decisions in a run's receipt, without a broker.")
]
KEY = Annotated[
    Path | None, typer.Option("--key", "-k", metavar="FILE", help="With --receipt: the public ledger keys (JWKS).")
]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "decision", "Make recorded decisions again.")

    @command(
        app,
        "replay",
        example="stepgrant decision replay --run order-1729\nstepgrant decision replay --since 2026-11-20 --json\n"
        "stepgrant decision replay --since 2026-11-20 --candidate policy\n"
        "stepgrant decision replay --receipt order-1729.receipt.json --key keys.json",
    )
    def replay(
        cli: Cli,
        decision: DECISION = None,
        run: RUN = None,
        since: SINCE = None,
        candidate: CANDIDATE = None,
        receipt: RECEIPT = None,
        key: KEY = None,
    ) -> None:
        """Make recorded decisions again: recorded input and time, recorded text, the engine that made them.

        Each must come out as it is recorded: effect, reasons, and what was granted or asked. Exit code 1 if one does
        not, if input, text or chain were changed, or if nothing could be made again. Inputs that were erased are
        listed as not replayable. With --candidate: what that policy would have decided otherwise. With --receipt and
        --key no broker is asked: the file holds entries, inputs and policy texts, and is verified first.
        """
        from stepgrant_broker.commands import replaying

        if decision is None and run is None and since is None and receipt is None:
            raise CommandError("name a DECISION, --run RUN, --since DATE or --receipt FILE")
        if (receipt is None) != (key is None) or (receipt is not None and run is not None):
            raise CommandError("--receipt FILE is of one run and needs --key FILE, the broker's public ledger keys")
        with said():
            file = (receipt, key) if receipt is not None and key is not None else None
            wanted = replaying.Wanted(decision, run, since, candidate, file)
            report = replaying.replay(cli, wanted)
        cli.out.emit(report.as_json(), lambda: report.show(cli.out))
        if not report.holds:
            raise typer.Exit(1)
