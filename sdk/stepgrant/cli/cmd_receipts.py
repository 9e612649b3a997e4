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
    typer.Option("--earlier", metavar="FILE", help="An earlier receipt of the run, or a part: find rewritten history."),
]
STEP = Annotated[str | None, typer.Option("--step", metavar="KEY", help="Only this step, with what is inside of it.")]
GRANT = Annotated[str | None, typer.Option("--grant", metavar="JTI", help="Only this grant.")]
LOG_POLICY = Annotated[
    Path | None,
    typer.Option("--log-policy", metavar="FILE", help="C2SP tlog-policy: the log and the witnesses that you trust."),
]
HTML = Annotated[
    Path | None,
    typer.Option("--html", metavar="OUT", help="Also write it as one HTML page, to read, print and file; new file."),
]
TEXTS = Annotated[bool, typer.Option("--policies", help="Also print the text of each policy that decided.")]
NOT_YOURS = (
    "The public keys came from the broker that made this receipt: that proves nothing against this broker. Verify the "
    "file with keys that you got another way."
)
MAX_BYTES = 268_435_456


def register(root: typer.Typer) -> None:
    """Add the groups."""
    app = group(root, "receipt", "Evidence of a run, for people who were not there.")
    _register_get(app)
    _register_verify(app)
    _register_show(app)
    _register_keys(group(root, "ledger", "The record that everything stands in."))


def _register_get(app: typer.Typer) -> None:
    @command(app, "get", example="stepgrant receipt get order-1729 --out order-1729.receipt.json")
    def get(
        cli: Cli, run: RUN, out: OUT = None, step: STEP = None, grant: GRANT = None, html: HTML = None
    ) -> None:  # fmt: skip
        """Get a receipt of a run, or of one step or grant of it: entries, what they stand for, heads and proofs.

        It holds the run's arguments and results in clear: give it only to people who may see them. With `--html` it is
        verified with the broker's own keys first.
        """
        from stepgrant import receipt
        from stepgrant.canonical import dumps
        from stepgrant.cli.client_file import refuse_existing
        from stepgrant.cli.cmd_runs import resolve
        from stepgrant.cli.people import LONG_S, segment

        for file in filter(None, (out, html)):
            refuse_existing(file)
        with cli.broker() as broker:
            run_id = resolve(broker, run)
            value = broker.get(f"/v1/runs/{segment(run_id)}/receipt", timeout_s=LONG_S, step=step, grant=grant)
            keys = broker.get("/v1/ledger/keys") if html is not None else None
        facts = {"run": run_id, "complete": value.get("complete")}
        if html is not None and keys is not None:
            _page(cli, receipt.verify(value, keys), html, keys_from=NOT_YOURS)
            facts["html"] = str(html)
        if html is None or out is not None:
            _deliver(cli, dumps(value), out, facts)
        else:
            cli.out.emit(facts, lambda: None)


def _register_verify(app: typer.Typer) -> None:
    @command(
        app,
        "verify",
        remote=False,
        example="stepgrant receipt verify order-1729.receipt.json --key keys.json --show",
    )
    def verify(
        cli: Cli,
        file: FILE,
        key: KEY,
        show: SHOW = False,
        earlier: EARLIER = None,
        log_policy: LOG_POLICY = None,
        html: HTML = None,
    ) -> None:
        """Check a receipt offline, with nothing but the public key. Exit code 1 if it does not hold."""
        from stepgrant import receipt
        from stepgrant.cli import receipt_view

        verified = _checked(file, key, log_policy)
        compared: tuple[int, int] | None = None
        if earlier is not None:
            before = receipt.verify(_read(earlier), _read(key))
            compared = verified.continues(before), len(before.events)
        _page(cli, verified, html)

        def told() -> None:
            if show:
                receipt_view.print_story(cli.out, verified)
                cli.out.line()
            receipt_view.print_verdict(cli.out, verified, compared=compared)

        cli.out.emit(receipt_view.as_json(verified, story=show), told)


def _register_show(app: typer.Typer) -> None:
    @command(
        app,
        "show",
        remote=False,
        example="stepgrant receipt show order-1729.receipt.json --key keys.json --html order-1729.html",
    )
    def show_receipt(
        cli: Cli, file: FILE, key: KEY, log_policy: LOG_POLICY = None, texts: TEXTS = False, html: HTML = None
    ) -> None:
        """Check a receipt offline, and tell all that it proves: story, steps, approvals, credentials, policies.

        One that does not hold is not shown.
        """
        from stepgrant.cli import receipt_view

        verified = _checked(file, key, log_policy)
        _page(cli, verified, html)
        value = receipt_view.as_json(verified, story=True, steps=True)
        cli.out.emit(value, lambda: receipt_view.print_whole(cli.out, verified, texts=texts))


def _register_keys(ledger: typer.Typer) -> None:
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


def _checked(file: Path, key: Path, log_policy: Path | None) -> Verified:
    """The receipt, if it holds. Raises `ReceiptError`."""
    from stepgrant import receipt

    policy = None if log_policy is None else _read(log_policy).decode("utf-8", "replace")
    return receipt.verify(_read(file), _read(key), log_policy=policy)


def _page(cli: Cli, verified: Verified, html: Path | None, *, keys_from: str | None = None) -> None:
    """Write the page, if one is wanted. Raises `CommandError` if the file exists."""
    if html is None:
        return
    from stepgrant import receipt
    from stepgrant.cli.client_file import refuse_existing, write_private

    refuse_existing(html)
    write_private(html, receipt.as_html(verified, keys_from=keys_from).encode())
    cli.out.note(f"page written to {plain.visible(html)}")
