"""`stepgrant quarantine`: the kill switch, for a run, an agent, a workload or an issuer."""

from __future__ import annotations

from enum import StrEnum
from inspect import signature
from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.output import Output

RELEASE = Annotated[bool, typer.Option("--release", help="Lift the switch. Runs that it stopped stay stopped.")]
BEFOREHAND = Annotated[bool, typer.Option("--beforehand", help="Block the name although nothing here has it yet.")]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Kind(StrEnum):
    """What a switch is thrown on."""

    RUN = "run"
    AGENT = "agent"
    WORKLOAD = "workload"
    ISSUER = "issuer"


HELP = {
    Kind.RUN: "Stop one run: nothing more is given to it, and what it holds is taken back.",
    Kind.AGENT: "Stop every run of an agent, and let it open none.",
    Kind.WORKLOAD: "Stop every run that a workload holds, and let it open none.",
    Kind.ISSUER: "Give out nothing of this issuer any more, and take back what is out.",
}
EXAMPLES = {Kind.RUN: "order-1729", Kind.AGENT: "billing", Kind.WORKLOAD: "wkl_01jd...", Kind.ISSUER: "jwt"}


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "quarantine", "The kill switch. Needs role operator.")
    for kind in Kind:
        _add(app, kind)

    @command(app, "list", example="stepgrant quarantine list")
    def list_switches(cli: Cli) -> None:
        """List the switches that are thrown on agents, workloads and issuers."""
        with cli.broker() as broker:
            answer = broker.get("/v1/quarantine")
        rows = [(one["kind"], one["name"], cli.out.when(one["at"])) for one in _switches(answer)]
        cli.out.emit(answer, lambda: cli.out.table(("kind", "name", "since"), rows, empty="nothing is quarantined"))


def _switches(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in answer["quarantines"] if one["until"] is None]


def _add(app: typer.Typer, kind: Kind) -> None:
    metavar = Annotated[str, typer.Argument(metavar="NAME", help=f"The {kind}'s id or name.")]

    def on_run(cli: Cli, target: str, release: bool = False, yes: bool = False) -> None:
        _switch(cli, kind, target, release=release, yes=yes)

    def on_name(cli: Cli, target: str, release: bool = False, beforehand: bool = False, yes: bool = False) -> None:
        _switch(cli, kind, target, release=release, yes=yes, beforehand=beforehand)

    switch = on_run if kind is Kind.RUN else on_name
    known = {"cli": Cli, "target": metavar, "release": RELEASE, "beforehand": BEFOREHAND, "yes": YES}
    switch.__doc__ = HELP[kind]
    switch.__annotations__ = {name: known[name] for name in signature(switch).parameters} | {"return": None}
    command(app, kind.value, example=f"stepgrant quarantine {kind} {EXAMPLES[kind]}")(switch)


def _switch(cli: Cli, kind: Kind, target: str, *, release: bool, yes: bool, beforehand: bool = False) -> None:
    from stepgrant.cli.cmd_runs import resolve

    with cli.broker() as broker:
        name = resolve(broker, target) if kind is Kind.RUN else target
        if release:
            answer = broker.post("/v1/quarantine/release", {kind.value: name})
        else:
            cli.out.confirm(f"Stop {kind} {plain.visible(name)} now?", yes=yes)
            body = {kind.value: name} | ({"beforehand": True} if beforehand else {})
            answer = broker.post("/v1/quarantine", body)
    cli.out.emit(answer, lambda: _said(cli.out, kind, name, answer, release=release))


def _said(out: Output, kind: Kind, name: str, answer: dict[str, Any], *, release: bool) -> None:
    if release:
        more = "; it is parked" if kind is Kind.RUN else "; runs that it stopped are released one by one"
        out.line(f"{kind} {plain.visible(name)} is released{more}")
        return
    runs = answer.get("runs", [])
    out.line(f"{kind} {plain.visible(name)} is quarantined; {plain.count(len(runs), 'run')} taken back")
