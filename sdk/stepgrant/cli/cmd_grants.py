"""`stepgrant grant`: permissions that were given, taking one back, and vouching for the death of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group

RUN = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run (id or key).")]
LIVE = Annotated[bool, typer.Option("--live", help="Only those that can still be used.")]
LIMIT = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the newest first.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
GRANT = Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id (grn_...).")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "grant", "See and revoke the permissions that runs were given.")

    @command(app, "list", example="stepgrant grant list --live")
    def list_grants(cli: Cli, run: RUN = None, live: LIVE = False, limit: LIMIT = 50) -> None:
        """List grants, the newest first. No secret is in them."""
        from stepgrant.cli.cmd_runs import resolve

        with cli.broker() as broker:
            run_id = None if run is None else resolve(broker, run)
            answer = broker.get("/v1/grants", run=run_id, live=live or None, limit=limit)
        cli.out.emit(answer, lambda: _table(cli, answer["grants"]))

    @command(app, "revoke", example="stepgrant grant revoke grn_01jd...")
    def revoke(cli: Cli, grant: GRANT) -> None:
        """Take one grant back at once. Needs role operator."""
        from stepgrant.cli.people import segment

        with cli.broker() as broker:
            answer = broker.post(f"/v1/grants/{segment(grant)}/revoke")
        cli.out.emit(answer, lambda: cli.out.line(_said(answer)))

    @command(app, "declare-dead", example="stepgrant grant declare-dead grn_01jd...")
    def declare_dead(cli: Cli, grant: GRANT, yes: YES = False) -> None:
        """Vouch for it that a credential is dead whose issuer can never confirm it. Needs role operator.

        For an issuer that was removed or has lost its memory: what waits for that confirmation (other effectful
        steps of the run, its erasure) then goes on. Allowed once the longest life is over; the record names you.
        """
        from stepgrant.cli.people import segment

        cli.out.confirm(f"Declare {plain.visible(grant)} dead, and give up taking it back?", yes=yes)
        with cli.broker() as broker:
            answer = broker.post(f"/v1/grants/{segment(grant)}/declare-dead")
        name = plain.visible(answer["jti"])
        cli.out.emit(answer, lambda: cli.out.line(f"{name} is declared dead; nothing waits for its issuer any more"))


def _said(grant: dict[str, Any]) -> str:
    if grant["revocation"] == "none":
        return f"{plain.visible(grant['jti'])} is revoked here, but its secret is static: change it where it is used"
    return f"{plain.visible(grant['jti'])} is {plain.visible(grant['status'])}"


def _table(cli: Cli, grants: list[dict[str, Any]]) -> None:
    rows = (
        (g["jti"], g["status"], g["tool"], g["step"], g["attempt"], g["epoch"], g["issuer"], g["audience"],
         "yes" if g["redeemed_at"] else "", cli.out.when(g["issued_at"]), cli.out.when(g["expires_at"]), g["cause"])
        for g in grants
    )  # fmt: skip
    columns = ("grant", "status", "tool", "step", "attempt", "epoch", "issuer", "for", "redeemed", "issued", "expires",
               "over because")  # fmt: skip
    cli.out.table(columns, rows, empty="no grants")
