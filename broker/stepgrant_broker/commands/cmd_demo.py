"""`stepgrant demo`: the whole story on this machine, in a minute."""

from __future__ import annotations

from typing import Annotated

import typer

from stepgrant.cli.command import Cli, command

KEEP = Annotated[bool, typer.Option("--keep", help="Keep the folder with database, books, logs and receipt.")]

LIMIT = Annotated[
    float | None,
    typer.Option("--limit", min=1, metavar="SECONDS", help="It fails if it takes longer; default: a minute."),
]


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(root, "demo", remote=False, example="stepgrant demo")
    def demo(cli: Cli, keep: KEEP = False, limit: LIMIT = None) -> None:
        """Watch an agent being killed twice, come back, and do each piece of work exactly once.

        Every line is checked as it is printed. Exit code 0 only if all of it held.
        """
        from stepgrant_broker.demo import main

        words = [word for word, wanted in (("--json", cli.out.json_mode), ("--keep", keep)) if wanted]
        raise typer.Exit(main([*words, *([] if limit is None else ["--limit", f"{limit:g}"])]))
