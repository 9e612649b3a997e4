"""`stepgrant rehearse -- python my_agent.py`: is it safe to kill my agent anywhere?"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.commands.rehearse.performing import Order
    from stepgrant_broker.commands.rehearse.report import Report
    from stepgrant_broker.commands.rehearse.session import Wanted

LIFE_S: Final = 60.0
TTL_S: Final = 5

COMMAND = Annotated[
    list[str] | None,
    typer.Argument(metavar="[--] COMMAND...", show_default=False, help="The agent's command, run as it is."),
]
POLICY = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FOLDER", help="Default: ./policy, else everything the agent asks is allowed."),
]
AGENT = Annotated[
    list[str] | None, typer.Option("--agent", metavar="NAME", help="An agent's name that no policy lists. Repeatable.")
]
JUNIT = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report as well.")]
QUICK = Annotated[bool, typer.Option("--quick", help="Only the first step of each tool, and one question to a person.")]
ONLY = Annotated[
    list[str] | None, typer.Option("--only", metavar="ID", help="This rehearsal; the report names each. Repeatable.")
]
STRICT = Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")]
JOBS = Annotated[int, typer.Option("--jobs", "-j", min=1, max=16, help="So many rehearsals side by side.")]
IN_PLACE = Annotated[bool, typer.Option("--in-place", help="Start it in this folder, not in a fresh copy each time.")]
OUTSIDE_OK = Annotated[
    list[str] | None,
    typer.Option("--outside-ok", metavar="PATTERN", help="A file, host:port or program that may be used outside of "
                 "tools, like 'api.example.com:443' or 'logs/*'. Repeatable."),
]  # fmt: skip
BESIDE = Annotated[
    str | None,
    typer.Option("--beside", metavar="COMMAND", help="Services that the agent needs, started before it in each "
                 "rehearsal with STEPGRANT_URL and an operator's STEPGRANT_TOKEN; they print `ready` when they are."),
]  # fmt: skip
TIMEOUT = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="The longest life of one process.")]
TTL = Annotated[int, typer.Option("--ttl", min=1, max=300, metavar="SECONDS", help="The longest life of a credential.")]
KEEP = Annotated[bool, typer.Option("--keep", help="Keep the folder with databases, outputs and what was seen.")]


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(
        root, "rehearse", remote=False,
        example="stepgrant rehearse -- python agent.py\nstepgrant rehearse --quick --junit out.xml -- python agent.py",
    )  # fmt: skip
    def rehearse(
        cli: Cli,
        words: COMMAND = None,
        *,
        policy: POLICY = None,
        agent: AGENT = None,
        junit: JUNIT = None,
        quick: QUICK = False,
        only: ONLY = None,
        strict: STRICT = False,
        jobs: JOBS = 1,
        in_place: IN_PLACE = False,
        outside_ok: OUTSIDE_OK = None,
        beside: BESIDE = None,
        timeout: TIMEOUT = LIFE_S,
        ttl: TTL = TTL_S,
        keep: KEEP = False,
    ) -> None:
        """Kill an agent at every boundary of every step, let it come back, and say what it did wrong, and the cure.

        It runs against a private broker, each time in a fresh copy of this folder: first undisturbed, then killed
        before the grant, after the grant, after the effect and after the record of each step, then waiting for a
        person, and with another policy meanwhile. Its effects are real: point it at test services. Exit code 0: nothing
        wrong (warnings apart); 1: findings; 2: usage; 3: the command cannot be started; 130: interrupted.
        """
        from stepgrant_broker.commands.rehearse.session import Wanted

        if not words:
            raise CommandError("say how the agent is started: stepgrant rehearse -- python agent.py")
        if (in_place or beside) and jobs > 1:
            raise CommandError("--jobs goes neither with --in-place nor --beside: side by side they would meet there")
        with said():
            order = _order(words, policy, agent or [], in_place=in_place, beside=beside, timeout=timeout, ttl=ttl)
            wanted = Wanted(
                quick=quick, only=tuple(only or ()), jobs=jobs, strict=strict, outside_ok=tuple(outside_ok or ())
            )
            report = _run(
                cli, order, replace(wanted, options=_again(order, policy, agent, outside_ok, beside)), keep=keep
            )
        if junit is not None:
            junit.write_bytes(report.junit())
        raise typer.Exit(_told(cli, report))


def _order(
    words: list[str], policy: Path | None, agents: list[str], *, in_place: bool, beside: str | None, timeout: float,
    ttl: int,
) -> Order:  # fmt: skip
    from stepgrant_broker.commands.rehearse import workspace
    from stepgrant_broker.commands.rehearse.performing import Order
    from stepgrant_broker.commands.rehearse.policies import read_policy

    folder = Path.cwd()
    if policy is not None and not policy.is_dir():
        raise CommandError(f"there is no folder {plain.visible(policy)}", code="not_found")
    if not in_place:
        workspace.refuse_large(folder)
    rules = read_policy(policy or (Path("policy") if Path("policy").is_dir() else None))
    return Order(
        words=workspace.anchored(words, folder),
        folder=folder,
        environment={name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")},
        policy=rules,
        agents=tuple(dict.fromkeys([*agents, *rules.agents])),
        timeout_s=timeout,
        ttl_s=ttl,
        in_place=in_place,
        beside=workspace.anchored(shlex.split(beside), folder) if beside else (),
    )


def _again(
    order: Order, policy: Path | None, agents: list[str] | None, outside_ok: list[str] | None, beside: str | None
) -> tuple[str, ...]:
    """The options that make a rehearsal what it was."""
    named = [("--policy", [str(policy)] if policy else []), ("--agent", agents or []), ("--beside", [beside or ""]),
             ("--outside-ok", outside_ok or []), ("--timeout", [f"{order.timeout_s:g}"] * (order.timeout_s != LIFE_S)),
             ("--ttl", [str(order.ttl_s)] * (order.ttl_s != TTL_S))]  # fmt: skip
    words = [word for name, values in named for value in values if value for word in (name, value)]
    return (*words, *(["--in-place"] if order.in_place else []))


def _run(cli: Cli, order: Order, wanted: Wanted, *, keep: bool) -> Report:
    from stepgrant_broker.commands.rehearse.lives import Lives
    from stepgrant_broker.commands.rehearse.session import Session
    from stepgrant_broker.commands.rehearse.showing import Told
    from stepgrant_broker.demo.processes import Interrupts

    progress = Told()
    with Interrupts().caught(), Lives() as lives:
        session = Session(order, wanted, lives, progress)
        try:
            return session.run()
        finally:
            progress.clear()
            if keep:
                cli.out.note(f"stepgrant rehearse: kept {session.folder}")
            else:
                lives.close()
                session.close()


def _told(cli: Cli, report: Report) -> int:
    from stepgrant_broker.commands.rehearse.showing import show

    cli.out.emit(report.document(), lambda: show(cli.out, report))
    return 1 if report.failed else 0
