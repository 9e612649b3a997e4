"""`stepgrant db`: the broker's database, on its own host."""

from __future__ import annotations

from typing import Annotated

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant_broker.commands.saying import said

NOTE = Annotated[str, typer.Option(help="Why, for the record: which copy was put back, and by whose decision.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    database = group(root, "db", "The broker's database, on its own host.")

    @command(database, "migrate", remote=False, example="stepgrant db migrate")
    def migrate(cli: Cli) -> None:
        """Make database and keys where there is neither, or bring the database to this version."""
        from stepgrant_broker.config import load_settings
        from stepgrant_broker.wiring import prepare

        with said():
            found = load_settings()
            prepare(found, create=True)
        value = {"database": found.database_shown, "keys": str(found.keys_folder)}
        cli.out.emit(value, lambda: cli.out.line(f"{plain.visible(found.database_shown)} has this version's schema"))

    @command(database, "check", remote=False, example="stepgrant db check")
    def check(cli: Cli) -> None:
        """Say whether the database has this version's schema, and change nothing. Exit code 5 if it does not."""
        from stepgrant_broker.config import load_settings
        from stepgrant_broker.wiring import check_database

        with said():
            found = load_settings()
            check_database(found)
        value = {"database": found.database_shown, "ok": True}
        cli.out.emit(value, lambda: cli.out.line(f"{plain.visible(found.database_shown)} has this version's schema"))

    @command(
        database,
        "restored",
        remote=False,
        example="stepgrant db restored --note 'the disk failed; backup of 3 May'",
    )
    def restored(cli: Cli, note: NOTE, yes: YES = False) -> None:
        """Take a database that was put back to an earlier state as it is. Run it while no broker runs.

        A broker refuses to start over a database that is behind what was seen of it outside. This command says in every
        chain that a part is gone: every run that is not ended jumps to an epoch that nobody can hold, what people
        answered is void, what may have been begun is in doubt, and nobody goes on with it before a person released it.
        Broken off, it is run again. Exit code 6 if the database is not behind.
        """
        from stepgrant_broker.commands.restoring import restore

        restore(cli, note, yes=yes)
