"""The broker's commands: they join `stepgrant` through the entry-point group `stepgrant.commands`.

Rules:
* Thin: parse, call, render. What a use case decides is decided there, and one table says which exit code an error has
  (`stepgrant.cli.exits`).
* Nothing of the broker is imported before a command runs, so that `stepgrant --help` stays quick, and works where only
  the command line is installed.
"""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the broker's commands to `stepgrant`, and lend it what needs this host's database."""
    from stepgrant.cli import extensions
    from stepgrant_broker.commands import (
        cmd_db,
        cmd_decision,
        cmd_demo,
        cmd_dev,
        cmd_doctor,
        cmd_export,
        cmd_init,
        cmd_keys,
        cmd_ledger,
        cmd_policy,
        cmd_rehearse,
        cmd_serve,
        cmd_vault,
        local_operator,
    )

    for module in (
        cmd_init,
        cmd_dev,
        cmd_rehearse,
        cmd_serve,
        cmd_db,
        cmd_policy,
        cmd_decision,
        cmd_ledger,
        cmd_export,
        cmd_keys,
        cmd_doctor,
        cmd_vault,
        cmd_demo,
    ):
        module.register(app)
    extensions.create_operator = local_operator.create_operator
