"""`stepgrant whoami`: whose token this is, and what it may do."""

from __future__ import annotations

from typing import Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(root, "whoami", example="stepgrant whoami")
    def whoami(cli: Cli) -> None:
        """Say who you are to which broker: name, roles and groups."""
        client = cli.client()
        with cli.broker() as broker:
            answer = broker.get("/v1/whoami")
        value = {**answer, "url": client.url, "token_from": client.source}
        cli.out.emit(value, lambda: _show(cli, value))


def _show(cli: Cli, value: dict[str, Any]) -> None:
    cli.out.line(plain.visible(value["name"]), style="bold")
    cli.out.facts(
        (
            ("id", value["id"]),
            ("tenant", value["tenant"]),
            ("roles", plain.joined(value["roles"])),
            ("groups", plain.joined(value["groups"])),
            ("broker", value["url"]),
            ("token from", value["token_from"]),
        )
    )
