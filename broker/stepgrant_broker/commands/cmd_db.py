"""`stepgrant db`: the broker's database, on its own host."""

from __future__ import annotations

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant_broker.commands.saying import said


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
