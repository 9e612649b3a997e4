"""`stepgrant workload`: which processes may act, as which agent, or serve which audience.

The private key is made here and stays here, in a file of mode 0600; the broker gets the public one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError

NAME = Annotated[str, typer.Argument(metavar="NAME", help="Its name, which is its identity: workload:<tenant>/NAME.")]
WORKLOAD = Annotated[str, typer.Argument(metavar="WORKLOAD", help="The workload's id (wkl_...).")]
AGENT = Annotated[
    list[str] | None, typer.Option("--agent", metavar="NAME", help="An agent name that it may claim; repeatable.")
]
AUDIENCE = Annotated[
    list[str] | None,
    typer.Option("--audience", metavar="URI", help="An audience that it serves as a resource server; repeatable."),
]
OUT = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where its private key goes. Default: NAME.key.json.")
]
ANOTHER_KEY = Annotated[
    bool,
    typer.Option("--another-key", help="Another key for a name that is enrolled: it may resume that one's runs."),
]
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "workload", "Enrol the processes that may act or serve.")

    @command(app, "list", example="stepgrant workload list")
    def list_workloads(cli: Cli) -> None:
        """List enrolled workloads."""
        with cli.broker() as broker:
            answer = broker.get("/v1/workloads")
        cli.out.emit(answer, lambda: _table(cli, answer["workloads"]))

    @command(app, "enroll", example="stepgrant workload enroll worker-1 --agent billing\n"
                                    "stepgrant workload enroll shop --audience https://shop.example")  # fmt: skip
    def enroll(
        cli: Cli,
        name: NAME,
        agent: AGENT = None,
        audience: AUDIENCE = None,
        out: OUT = None,
        another_key: ANOTHER_KEY = False,
    ) -> None:
        """Make a key here, enrol its public part, and save it for STEPGRANT_WORKLOAD_KEY. Needs role operator.

        Whoever has a key of this name is this workload: policy sees the name, and the same name may resume a run. So a
        name that is enrolled is refused, unless you say --another-key; to change a key, enrol another one, hand it
        over, and remove the first (`stepgrant workload list` has its id).
        """
        if not agent and not audience:
            raise CommandError("name at least one --agent, or one --audience of a resource server")
        path = out or Path(f"{_file_name(name)}.key.json")
        answer = enroll_with_new_key(
            cli, name, agents=agent or [], audiences=audience or [], path=path, another_key=another_key
        )
        cli.out.emit({**answer, "key_file": str(path)}, lambda: _enrolled(cli, answer, path))

    @command(app, "remove", example="stepgrant workload remove wkl_01jd...")
    def remove(cli: Cli, workload: WORKLOAD, yes: YES = False) -> None:
        """Remove a workload; what it asks for from now on is refused. Needs role operator."""
        from stepgrant.cli.people import segment

        cli.out.confirm(f"Remove workload {plain.visible(workload)}?", yes=yes)
        with cli.broker() as broker:
            answer = broker.delete(f"/v1/workloads/{segment(workload)}")
        cli.out.emit(answer, lambda: cli.out.line(f"workload {plain.visible(workload)} is removed"))


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).lstrip(".") or "workload"


def enroll_with_new_key(
    cli: Cli, name: str, *, agents: list[str], audiences: list[str], path: Path, another_key: bool = False
) -> dict[str, Any]:
    """Enrol a fresh key and save it, or leave nothing behind. `another_key`: of a name that has one."""
    from stepgrant._exchange import WorkloadKey
    from stepgrant._keys import SecretKey
    from stepgrant.cli.client_file import refuse_existing
    from stepgrant.cli.people import segment
    from stepgrant.errors import ConfigurationError

    refuse_existing(path)
    secret = SecretKey.generate()
    body: dict[str, Any] = {"name": name, "agents": agents, "audiences": audiences}
    body |= {"another_key": True} if another_key else {}
    with cli.broker() as broker:
        answer = broker.post("/v1/workloads", {**body, "jwk": secret.public.jwk})
        try:
            WorkloadKey(str(answer["id"]), secret).save(path)
        except ConfigurationError:
            broker.delete(f"/v1/workloads/{segment(str(answer['id']))}")  # a key that nobody has is enrolled for nobody
            raise
    return answer


def _enrolled(cli: Cli, answer: dict[str, Any], path: Path) -> None:
    cli.out.line(f"workload {plain.visible(answer['name'])} is enrolled as {plain.visible(answer['id'])}")
    cli.out.facts(
        (
            ("agents", plain.joined(answer["agents"]) if answer["agents"] else None),
            ("audiences", plain.joined(answer["audiences"]) if answer["audiences"] else None),
            ("key", f"{path} (0600; it exists nowhere else)"),
        )
    )
    cli.out.line(f"  give it to the process: export STEPGRANT_WORKLOAD_KEY={plain.visible(path.absolute())}")


def _table(cli: Cli, workloads: list[dict[str, Any]]) -> None:
    rows = (
        (w["id"], w["name"], ", ".join(w["agents"]), ", ".join(w["audiences"]), w["kind"],
         cli.out.when(w["enrolled_at"]), cli.out.when(w["removed_at"]))
        for w in workloads
    )  # fmt: skip
    columns = ("workload", "name", "agents", "audiences", "kind", "enrolled", "removed")
    cli.out.table(columns, rows, empty="no workloads are enrolled")
