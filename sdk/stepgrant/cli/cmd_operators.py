"""`stepgrant operator`: the people who may look, answer and administer.

A new token is written to a client file of mode 0600 and shown nowhere; the broker keeps only its hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepgrant.cli import extensions, plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

NAME = Annotated[str, typer.Argument(metavar="NAME", help="The person's name, as records show it.")]
OPERATOR = Annotated[str, typer.Argument(metavar="OPERATOR", help="The person's id (opr_...).")]
ROLE = Annotated[list[str], typer.Option("--role", help="approver or operator; repeatable.")]
GROUP = Annotated[
    list[str] | None, typer.Option("--group", metavar="NAME", help="A group that policy can ask; repeatable.")
]
OUT = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The client file to write. Default: NAME.client.json.")
]
LOCAL = Annotated[
    bool,
    typer.Option(
        "--local", help="On the broker's own host: write to its database, with its settings, without a token."
    ),
]
ANOTHER = Annotated[
    bool,
    typer.Option("--another-token", help="Although somebody of this name is there: the two count as two people."),
]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "operator", "People: who may look, answer and administer.")

    @command(app, "list", example="stepgrant operator list")
    def list_operators(cli: Cli) -> None:
        """List people with their roles and groups."""
        with cli.broker() as broker:
            answer = broker.get("/v1/operators")
        cli.out.emit(answer, lambda: _table(cli, answer["operators"]))

    @command(app, "create", example="stepgrant operator create ada --role approver --group finance\n"
                                    "stepgrant operator create root --role operator --local")  # fmt: skip
    def create(
        cli: Cli,
        name: NAME,
        role: ROLE,
        group: GROUP = None,
        out: OUT = None,
        local: LOCAL = False,
        another_token: ANOTHER = False,
    ) -> None:
        """Create a person and write a client file with the new token (mode 0600), to be handed over.

        The first one of a broker is made with --local on its host. Needs role operator otherwise. Somebody who lost a
        token is removed first, then created again.
        """
        path = out or Path(f"{_file_name(name)}.client.json")
        body: dict[str, Any] = {"name": name, "roles": role, "groups": group or []}
        answer = _create(cli, body | ({"another_token": True} if another_token else {}), path, local=local)
        cli.out.emit({**answer, "client_file": str(path)}, lambda: _created(cli, answer, path))

    @command(app, "remove", example="stepgrant operator remove opr_01jd...")
    def remove(cli: Cli, operator: OPERATOR, yes: YES = False) -> None:
        """Remove a person; the token stops working at once. Needs role operator."""
        from stepgrant.cli.people import segment

        cli.out.confirm(f"Remove {plain.visible(operator)}?", yes=yes)
        with cli.broker() as broker:
            answer = broker.delete(f"/v1/operators/{segment(operator)}")
        cli.out.emit(answer, lambda: cli.out.line(f"{plain.visible(answer['name'])} is removed"))


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).lstrip(".") or "operator"


def _create(cli: Cli, body: dict[str, Any], path: Path, *, local: bool) -> dict[str, Any]:
    """Create the person and write the client file; the answer without the token."""
    from stepgrant.cli.client_file import Client, refuse_existing, save

    refuse_existing(path)
    if local:
        if extensions.create_operator is None:
            raise CommandError(
                "--local needs the broker on this machine: pip install 'stepgrant[broker,embedded]'",
                code="not_installed",
            )
        answer = extensions.create_operator(**body)
        url = str(answer.pop("url"))
    else:
        with cli.broker() as broker:
            answer = broker.post("/v1/operators", body)
        url = cli.client().url
    token = str(answer.pop("token"))
    save(path, Client(url, token, str(path)))
    return answer


def _created(cli: Cli, answer: dict[str, Any], path: Path) -> None:
    cli.out.line(f"{plain.visible(answer['name'])} is {plain.visible(answer['id'])}")
    cli.out.facts(
        (
            ("roles", plain.joined(answer["roles"])),
            ("groups", plain.joined(answer["groups"])),
            ("client file", f"{path} (0600; the token is in it and nowhere else)"),
        )
    )
    cli.out.line(f"  use it: --client {plain.visible(path)}, or move it to ~/.config/stepgrant/client.json")


def _table(cli: Cli, operators: list[dict[str, Any]]) -> None:
    rows = (
        (o["id"], o["name"], ", ".join(o["roles"]), ", ".join(o["groups"]), cli.out.when(o["created_at"]),
         cli.out.when(o["removed_at"]))
        for o in operators
    )  # fmt: skip
    cli.out.table(("operator", "name", "roles", "groups", "created", "removed"), rows, empty="nobody")
