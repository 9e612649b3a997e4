"""`stepgrant ledger verify`: read every chain of this host's database, fold it, and compare it with every table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.ledger.findings import Finding, Progress

STEP = 25
"""Runs between two lines of progress on a terminal."""


def register(root: typer.Typer) -> None:
    """Add the command to the group `ledger`."""
    app = group(root, "ledger", "The record that everything stands in.")

    @command(app, "verify", remote=False, example="stepgrant ledger verify")
    def verify(cli: Cli) -> None:
        """Check every entry, table row and stored value of this host's database. Exit code 1 if anything is wrong.

        It finds what was changed, removed or added behind the broker's back. A ledger that was rewritten whole, with
        the broker's own keys, is found with an earlier receipt: `stepgrant receipt verify --earlier`.
        """
        with said():
            findings, progress = finished(_verify(cli))
        value = {"ok": not findings, "findings": [_plain(one) for one in findings], **_counts(progress)}
        cli.out.emit(value, lambda: _print(cli, findings, progress))
        if findings:
            raise typer.Exit(1)

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


async def _verify(cli: Cli) -> tuple[list[Finding], Progress]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened

    show = cli.out.terminal and sys.stderr.isatty()

    def watch(progress: Progress) -> None:
        if show and progress.runs % STEP == 0:
            sys.stderr.write(f"\r{plain.count(progress.runs, 'run')}, {progress.entries} entries ")
            sys.stderr.flush()

    async with opened(load_settings()) as broker:
        check = broker.ledger_check(watch)
        findings = [finding async for finding in check.findings()]
    if show:
        sys.stderr.write("\r\x1b[K")
    return findings, check.progress


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "tenant": finding.tenant,
        "run": finding.run,
        "seq": finding.seq,
        "what": finding.what,
    }


def _counts(progress: Progress) -> dict[str, int]:
    return {
        "tenants": progress.tenants,
        "runs": progress.runs,
        "entries": progress.entries,
        "values": progress.payloads,
    }


def _print(cli: Cli, findings: list[Finding], progress: Progress) -> None:
    for finding in findings:
        cli.out.line(plain.visible(finding), style="red")
    entries = plain.count(progress.entries, "entry", "entries")
    read = f"{entries} of {plain.count(progress.runs, 'run')} read, {progress.payloads} stored values opened"
    if findings:
        cli.out.line(f"{plain.count(len(findings), 'finding')}; {read}", style="bold red")
    else:
        cli.out.line(f"The ledger holds: {read}; tables and entries say the same.", style="green")
