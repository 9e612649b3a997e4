"""`stepgrant ledger verify`: read every chain of this host's database, fold it, and compare it with every table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
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
