"""`stepgrant receipt` and `stepgrant ledger keys`: take evidence home, and check it without asking anybody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

if TYPE_CHECKING:
    from stepgrant.receipt import Verified

RUN = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its key.")]
OUT = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write a new file instead of stdout.")]
FILE = Annotated[Path, typer.Argument(metavar="FILE", help="The receipt; - reads stdin.")]
KEY = Annotated[
    Path,
    typer.Option("--key", "-k", metavar="FILE", help="The broker's public ledger keys (JWKS), from `ledger keys`."),
]
SHOW = Annotated[bool, typer.Option("--show", help="Also tell what the run did.")]
EARLIER = Annotated[
    Path | None,
    typer.Option("--earlier", metavar="FILE", help="An earlier receipt of the run: find rewritten history."),
]
STEP = Annotated[str | None, typer.Option("--step", metavar="KEY", help="Only this step, with what is inside of it.")]
GRANT = Annotated[str | None, typer.Option("--grant", metavar="JTI", help="Only this grant.")]
LOG_POLICY = Annotated[
    Path | None,
    typer.Option("--log-policy", metavar="FILE", help="C2SP tlog-policy: the log and the witnesses that you trust."),
]
MAX_BYTES = 268_435_456


def register(root: typer.Typer) -> None:
    """Add the groups."""
    app = group(root, "receipt", "Evidence of a run, for people who were not there.")

    @command(app, "get", example="stepgrant receipt get order-1729 --out order-1729.receipt.json")
    def get(cli: Cli, run: RUN, out: OUT = None, step: STEP = None, grant: GRANT = None) -> None:
        """Get a receipt of a run, or of one step or grant of it: entries, what they stand for, heads and proofs.

        It holds the run's arguments and results in clear: give it only to people who may see them.
        """
        from stepgrant.canonical import dumps
        from stepgrant.cli.cmd_runs import resolve
        from stepgrant.cli.people import segment

        with cli.broker() as broker:
            run_id = resolve(broker, run)
            value = broker.get(f"/v1/runs/{segment(run_id)}/receipt", step=step, grant=grant)
        _deliver(cli, dumps(value), out, {"run": run_id, "complete": value.get("complete")})

    @command(
        app,
        "verify",
        remote=False,
        example="stepgrant receipt verify order-1729.receipt.json --key keys.json --show",
    )
    def verify(
        cli: Cli, file: FILE, key: KEY, show: SHOW = False, earlier: EARLIER = None, log_policy: LOG_POLICY = None
    ) -> None:
        """Check a receipt offline, with nothing but the public key. Exit code 1 if it does not hold."""
        from stepgrant import receipt

        keys = _read(key)
        policy = None if log_policy is None else _read(log_policy).decode("utf-8", "replace")
        verified = receipt.verify(_read(file), keys, log_policy=policy)
        if earlier is not None:
            verified.continues(receipt.verify(_read(earlier), keys))
        _verified(cli, verified, show=show, compared=earlier is not None)

    ledger = group(root, "ledger", "The record that everything stands in.")

    @command(ledger, "keys", example="stepgrant ledger keys --out keys.json")
    def keys(cli: Cli, out: OUT = None) -> None:
        """Get the broker's public ledger keys, for checking receipts offline. Keep them apart from the receipts."""
        from stepgrant.canonical import dumps

        with cli.broker() as broker:
            value = broker.get("/v1/ledger/keys")
        _deliver(cli, dumps(value), out, {"keys": len(value.get("keys", []))})


def _deliver(cli: Cli, data: bytes, out: Path | None, facts: dict[str, Any]) -> None:
    if out is None:
        sys.stdout.write(data.decode() + "\n")
        return
    from stepgrant.cli.client_file import refuse_existing, write_private

    refuse_existing(out)
    write_private(out, data)
    cli.out.emit({**facts, "file": str(out)}, lambda: cli.out.line(f"written to {plain.visible(out)}"))


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_BYTES)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", code="not_found") from None
    return data.removesuffix(b"\n")


def _verified(cli: Cli, verified: Verified, *, show: bool, compared: bool) -> None:
    from stepgrant.cli import story_of, timeline

    value = story_of.facts(verified)
    if show:
        value["story"] = timeline.as_json(timeline.tell(verified.events))
    cli.out.emit(value, lambda: _print(cli, verified, show=show, compared=compared))


def _print_log(cli: Cli, verified: Verified) -> None:
    from datetime import UTC, datetime

    logged = verified.logged
    if logged is None:
        cli.out.line("  It has no proof that the log holds it: ask for a newer receipt.", style="yellow")
        return
    by = ", ".join(
        f"{plain.visible(name)} at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
        for name, seconds in logged.cosigned.items()
    )
    told = f"; cosigned by {by}" if by else ""
    cli.out.line(f"  Each entry is in the log {plain.visible(logged.origin)} of {logged.size} entries{told}.")


def _print(cli: Cli, verified: Verified, *, show: bool, compared: bool) -> None:
    from stepgrant import receipt
    from stepgrant.cli import timeline, timeline_view

    out = cli.out
    if show:
        timeline_view.show(timeline.tell(verified.events), out)
        out.line()
    entries = plain.count(len(verified.events), "entry", "entries")
    kind, name = verified.scope
    if kind == "run":
        told = f"{entries} of {plain.visible(verified.run)}, none changed, moved or missing."
    else:
        told = f"{entries} of {kind} {plain.visible(name)} in {plain.visible(verified.run)}, none changed or moved."
    out.line(f"The receipt holds: {told}", style="green")
    _print_log(cli, verified)
    if kind != "run":
        out.line(f"  It is about one {kind}: what else the run did is not in it.", style="yellow")
    elif verified.complete:
        out.line("  It is complete: the run has ended, nothing can come after it.")
    else:
        out.line("  The run had not ended: more may have come since.", style="yellow")
    if compared:
        out.line("  It continues the earlier receipt: nothing in it was rewritten.")
    out.facts(
        (
            ("head signed by", verified.kid),
            ("head signed at", None if verified.head_ts is None else plain.utc(verified.head_ts)),
            ("head", verified.head_hash),
            ("disclosed", f"{verified.disclosed} values, {verified.hidden} kept hidden"),
            ("not understood", plain.joined(verified.unknown_types) if verified.unknown_types else None),
        )
    )
    out.line("  It does not prove:", style="dim")
    for line in receipt.DOES_NOT_PROVE:
        out.line(f"    {line}", style="dim")
