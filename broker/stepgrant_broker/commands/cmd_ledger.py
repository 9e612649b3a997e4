"""`stepgrant ledger verify` and `stepgrant ledger witness`: check this host's ledger, and watch over another's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said


def register(root: typer.Typer) -> None:
    """Add the commands to the group `ledger`."""
    app = group(root, "ledger", "The record that everything stands in.")
    _add_verify(app)
    _add_witness(app)


def _add_verify(app: typer.Typer) -> None:
    @command(app, "verify", remote=False, example="stepgrant ledger verify --known-head head-of-last-year.txt")
    def verify(
        cli: Cli,
        known_head: Annotated[
            list[Path] | None,
            typer.Option(
                "--known-head",
                "--since-head",
                metavar="FILE",
                help="A signed head of this log that was kept elsewhere (`curl .../v1/log/checkpoint`); may be given "
                "again. Without one, a rollback to a whole backup cannot be seen.",
            ),
        ] = None,
        log_policy: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="C2SP tlog-policy: believe only these log keys and witnesses."),
        ] = None,
        url: Annotated[
            str | None, typer.Option(metavar="URL", help="Read head and tiles from this running broker, over HTTP.")
        ] = None,
        *,
        ask_witnesses: Annotated[
            bool, typer.Option("--ask-witnesses", help="Ask the witnesses of the log policy what they remember.")
        ] = False,
    ) -> None:
        """Check entries, tables, stored values, tiles and heads of this host's database. Exit code 1 for any finding.

        It finds what was changed, removed or added behind the broker's back, and names the row. What nobody can find
        from the database alone is that it is an older state of itself, or another one that was made with the broker's
        own keys: for that it needs a head that was kept elsewhere.
        """
        from stepgrant_broker.commands.verifying import verify as work

        work(cli, known_head or [], log_policy, url, ask=ask_witnesses)


def _add_witness(app: typer.Typer) -> None:
    @command(
        app,
        "witness",
        remote=False,
        example="stepgrant ledger witness --name witness.example --log 'broker.example/log+a1b2c3d4+AZ...' "
        "--folder /var/lib/witness",
    )
    def witness(
        cli: Cli,
        name: Annotated[str, typer.Option(help="The witness's name, as auditors will know it.")],
        log: Annotated[list[str], typer.Option(help="Verifier key of a log to witness; may be given again.")],
        folder: Annotated[Path, typer.Option(help="Holds the witness's key and what it cosigned; made if missing.")],
        host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="0 takes a free port.")] = 8424,
        *,
        behind_proxy: Annotated[
            bool, typer.Option(help="A proxy that ends TLS is the only one that can reach this port.")
        ] = False,
    ) -> None:
        """Run a witness: it cosigns a log's heads, as long as each continues what it cosigned before.

        Run it where the log's operator cannot reach: what it remembers is what makes a rollback or a fork visible.
        """
        with said():
            _witness(cli, name, log, folder, {"host": host, "port": port, "proxy_terminates_tls": behind_proxy})


def _witness(cli: Cli, name: str, logs: list[str], folder: Path, where: dict[str, Any]) -> None:
    import asyncio

    from stepgrant.tlog import LogPolicyInvalid
    from stepgrant_broker.config import explicit_settings
    from stepgrant_broker.wiring.witnessing import open_witness, run_witness

    try:
        opened = open_witness(folder, name, logs)
    except LogPolicyInvalid as refused:
        raise CommandError(str(refused), code="configuration_error") from None

    def ready(url: str) -> None:
        if cli.out.json_mode:
            cli.out.document({"url": url, "vkey": opened.key.vkey})
        else:
            cli.out.line(f"witness {name} answers at {url}; its line in a log policy:")
            cli.out.line(f"witness {name} {opened.key.vkey} {url}")
        sys.stdout.flush()

    asyncio.run(run_witness(opened, explicit_settings(data_dir=folder, **where), ready))
