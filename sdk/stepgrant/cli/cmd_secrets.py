"""`stepgrant secret`: static secrets that people already have, given out only under a grant and for named hosts.

The value comes from a terminal without echo, or from stdin; never from an argument, which every user of the machine
can read, and never back from the broker.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

NAME = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, as policy speaks of it.")]
HOST = Annotated[
    list[str], typer.Option("--host", metavar="HOST[:PORT]", help="A host that it may be sent to; repeatable.")
]
HEADER = Annotated[str, typer.Option("--header", metavar="NAME", help="The header that carries it.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MAX_BYTES = 65_536


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "secret", "Static secrets for the issuer `static` (nobody can revoke them).")

    @command(app, "list", example="stepgrant secret list")
    def list_secrets(cli: Cli) -> None:
        """List secrets by name, host and header; never their values."""
        with cli.broker() as broker:
            answer = broker.get("/v1/secrets")
        cli.out.emit(answer, lambda: _table(cli, answer["secrets"]))

    @command(app, "set", example="stepgrant secret set crm --host api.crm.example\n"
                                 "pass show crm | stepgrant secret set crm --host api.crm.example")  # fmt: skip
    def set_secret(cli: Cli, name: NAME, host: HOST, header: HEADER = "Authorization") -> None:
        """Set or replace a secret; the value is asked for, or read from stdin. Needs role operator."""
        from stepgrant.cli.people import segment

        value = _read_value(name)
        with cli.broker() as broker:
            answer = broker.put(f"/v1/secrets/{segment(name)}", {"value": value, "hosts": host, "header": header})
        cli.out.emit(answer, lambda: cli.out.line(f"{plain.visible(name)} is set for {plain.joined(answer['hosts'])}"))

    @command(app, "remove", example="stepgrant secret remove crm")
    def remove(cli: Cli, name: NAME, yes: YES = False) -> None:
        """Forget a secret. Needs role operator."""
        from stepgrant.cli.people import segment

        cli.out.confirm(f"Forget the secret {plain.visible(name)}?", yes=yes)
        with cli.broker() as broker:
            answer = broker.delete(f"/v1/secrets/{segment(name)}")
        cli.out.emit(answer, lambda: cli.out.line(f"{plain.visible(name)} is removed"))


def _read_value(name: str) -> str:
    """The value, without the one line end that editors and pipes add. Raises `CommandError`, which never shows it."""
    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"Value of {plain.visible(name)} (not shown): ", stream=sys.stderr)
    else:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise CommandError("the value on stdin is too long")
        try:
            value = data.decode("utf-8")
        except UnicodeDecodeError:
            raise CommandError("the value on stdin is not UTF-8 text") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise CommandError("there is no value: type it when asked, or pipe it in")
    return value


def _table(cli: Cli, secrets: list[dict[str, Any]]) -> None:
    rows = ((s["name"], ", ".join(s["hosts"]), s["header"], cli.out.when(s["set_at"])) for s in secrets)
    cli.out.table(("name", "hosts", "header", "set"), rows, empty="no secrets")
