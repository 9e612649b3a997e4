"""`stepgrant vault setup`: everything that the broker needs in Vault or OpenBao, and no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.wiring.vault_setup import LoginKind, Options, Report

ADDR = Annotated[
    str,
    typer.Option("--addr", metavar="URL", envvar=["STEPGRANT_BROKER_VAULT_ADDR", "VAULT_ADDR"], help="Where Vault is."),
]
TOKEN_FILE = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Holds an admin token, mode 0600. Default: VAULT_TOKEN."),
]
NAMESPACE = Annotated[
    str | None,
    typer.Option("--namespace", envvar=["STEPGRANT_BROKER_VAULT_NAMESPACE", "VAULT_NAMESPACE"], help="Its namespace."),
]
CA_FILE = Annotated[
    Path | None,
    typer.Option("--ca-file", envvar="STEPGRANT_BROKER_VAULT_CA_FILE", help="Certificates that vouch for Vault's."),
]
ISSUERS = Annotated[
    Path | None,
    typer.Option("--issuers", envvar="STEPGRANT_BROKER_ISSUERS_FILE", help="The issuers file: what grants will need."),
]
TRANSIT = Annotated[bool, typer.Option("--transit", help="Make the keys for signer=transit, and let the broker sign.")]
TRANSIT_MOUNT = Annotated[
    str, typer.Option("--transit-mount", envvar="STEPGRANT_BROKER_TRANSIT_MOUNT", help="Where those keys are.")
]
LOGIN = Annotated[str, typer.Option("--login", help="How the broker logs in: approle, jwt, or none (your own way).")]
LOGIN_MOUNT = Annotated[str | None, typer.Option("--login-mount", help="Where that auth method is. Default: its name.")]
ROLE = Annotated[str, typer.Option("--role", help="Names the broker's login role and its policy.")]
SUBJECT = Annotated[str | None, typer.Option("--jwt-subject", help="With --login jwt: the broker's subject.")]
AUDIENCE = Annotated[str | None, typer.Option("--jwt-audience", help="With --login jwt: the audience of its tokens.")]
SECRET_ID = Annotated[
    Path | None,
    typer.Option(
        "--secret-id-file", metavar="FILE", help="With approle: write a secret id there, if there is no file."
    ),
]
DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")]
EXAMPLE = """VAULT_TOKEN=... stepgrant vault setup --addr https://vault.example:8200 --issuers issuers.toml --dry-run
stepgrant vault setup --token-file admin-token --issuers issuers.toml --transit --secret-id-file secret-id"""


def register(root: typer.Typer) -> None:
    """Add the group."""
    vault = group(root, "vault", "What the broker needs in Vault or OpenBao.")

    @command(vault, "setup", remote=False, example=EXAMPLE)
    def setup(
        cli: Cli,
        *,
        addr: ADDR,
        token_file: TOKEN_FILE = None,
        namespace: NAMESPACE = None,
        ca_file: CA_FILE = None,
        issuers: ISSUERS = None,
        transit: TRANSIT = False,
        transit_mount: TRANSIT_MOUNT = "transit",
        login: LOGIN = "approle",
        login_mount: LOGIN_MOUNT = None,
        role: ROLE = "stepgrant-broker",
        jwt_subject: SUBJECT = None,
        jwt_audience: AUDIENCE = None,
        secret_id_file: SECRET_ID = None,
        dry_run: DRY_RUN = False,
    ) -> None:
        """Make keys, policies and roles, as far as they are missing or different. A second time it changes nothing.

        It needs an admin token (--token-file, or VAULT_TOKEN), which it neither keeps nor prints. What the broker gets
        is in its policy, each line with its reason; databases, secrets and CAs stay yours to set up.
        """
        options = _options()(
            addr=addr,
            token=os.environ.get("VAULT_TOKEN") if token_file is None else None,
            token_file=token_file,
            namespace=namespace,
            ca_file=ca_file,
            issuers_file=issuers,
            transit=transit,
            transit_names=_transit_names(transit_mount),
            login=_login(login),
            login_mount=login_mount,
            role=role,
            jwt_subject=jwt_subject,
            jwt_audience=jwt_audience,
            secret_id_file=secret_id_file,
        )
        report = _done(options, do=not dry_run)
        cli.out.emit(_plain(report, dry_run=dry_run), lambda: _print(cli, report, dry_run=dry_run))


def _options() -> type[Options]:
    try:
        from stepgrant_broker.wiring.vault_setup import Options
    except ModuleNotFoundError:
        raise CommandError("this needs `pip install 'stepgrant[vault]'`", code="not_installed") from None
    return Options


def _done(options: Any, *, do: bool) -> Report:  # noqa: ANN401 - Options, which is imported late
    from stepgrant_broker.wiring.vault_setup import set_up

    with said():
        return finished(set_up(options, do=do))


def _transit_names(mount: str) -> dict[str, str]:
    """The mount, and the names of keys that the broker's environment says."""
    names = {"transit_mount": mount}
    for purpose in ("grants", "access", "heads"):
        key = f"transit_key_{purpose}"
        if (name := os.environ.get(f"STEPGRANT_BROKER_{key.upper()}")) is not None:
            names[key] = name
    return names


def _login(text: str) -> LoginKind:
    match text:
        case "approle" | "jwt" | "none":
            return text
        case _:
            raise typer.BadParameter("approle, jwt or none", param_hint="--login")


def _plain(report: Report, *, dry_run: bool) -> dict[str, Any]:
    calls = [{"method": one.method, "path": one.path, "body": dict(one.body), "why": one.why} for one in report.calls]
    return {"done": not dry_run, "calls": calls, "role_id": report.role_id}


def _print(cli: Cli, report: Report, *, dry_run: bool) -> None:
    out = cli.out
    if not report.calls:
        out.line("Vault has what the broker needs; nothing to change")
    for one in report.calls:
        out.line(
            f"{'would send' if dry_run else 'done'}: {one.method} {plain.visible(one.path)}  ({plain.visible(one.why)})"
        )
        if dry_run:
            for name, value in one.body.items():
                _shown(cli, name, value)
    if report.role_id is not None:
        out.line(f"STEPGRANT_BROKER_VAULT_ROLE_ID={plain.visible(report.role_id)}")


def _shown(cli: Cli, name: str, value: object) -> None:
    lines = str(value).rstrip("\n").splitlines() or [""]
    if len(lines) == 1:
        cli.out.line(f"    {plain.visible(name)} = {plain.visible(lines[0])}")
        return
    cli.out.line(f"    {plain.visible(name)} =")
    for line in lines:
        cli.out.line(f"      {plain.visible(line)}")
