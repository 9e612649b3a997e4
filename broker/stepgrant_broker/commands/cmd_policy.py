"""`stepgrant policy`: write policy with confidence: check it, test it, try it, and ask why it decided.

check, test, build and eval work on files here, without a broker; explain, list and show ask the broker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands import policy_files
from stepgrant_broker.commands.policy_files import ENGINE, Engine
from stepgrant_broker.commands.saying import said

POLICY = Annotated[
    Path | None, typer.Option("--policy", metavar="FOLDER", help="The policy's folder. Default: as for `policy check`.")
]
CANDIDATE = Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The folder of the policy that is thought about.")]
REVISION = Annotated[str, typer.Argument(metavar="REVISION", help="A revision (1:sha-256:...), or its counter.")]
OUT = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write its files into this new folder.")]
RUN = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its key.")]
STEP = Annotated[str | None, typer.Argument(metavar="STEP", help="The step's key. Default: the newest decision.")]
DECISION = Annotated[str | None, typer.Option("--decision", metavar="ID", help="This decision, by its id.")]
INPUT = Annotated[
    Path | None, typer.Option("--input", "-i", metavar="FILE", help="The input document (JSON); - reads stdin.")
]
OF_RUN = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Take the recorded input of this run.")]
OF_STEP = Annotated[str | None, typer.Option("--step", metavar="STEP", help="With --run: of this step.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "policy", "Check, test and try policy, and ask why it decided.")
    policy_files.register(app)
    _on_decisions(app)
    _on_candidates(app)
    _on_revisions(app)


def _on_decisions(app: typer.Typer) -> None:
    @command(
        app,
        "eval",
        example="stepgrant policy eval --input input.json --policy policy\n"
        "stepgrant policy eval --run order-1729 --step charge",
    )
    def evaluate(
        cli: Cli,
        policy: POLICY = None,
        input_file: INPUT = None,
        run: OF_RUN = None,
        step: OF_STEP = None,
        engine: ENGINE = Engine.AUTO,
    ) -> None:
        """Decide on an input with the policy in a folder, as the broker would: one from a file, or a recorded one."""
        from stepgrant_broker.commands import deciding

        with said():
            _, bundle = policy_files.read(policy)
            asked = deciding.input_of(cli, input_file, run, step)
            answer = deciding.decide(bundle, asked, policy_files.tool_of(engine))
        cli.out.document(answer)

    @command(app, "explain", example="stepgrant policy explain order-1729 charge")
    def explain(cli: Cli, run: RUN, step: STEP = None, decision: DECISION = None) -> None:
        """Say in words which rules made a recorded decision, and what they looked at."""
        from stepgrant_broker.commands import deciding

        with said():
            deciding.explain(cli, run, step, decision)


def _on_candidates(app: typer.Typer) -> None:
    @command(app, "preflight", example="stepgrant policy preflight policy")
    def preflight(cli: Cli, candidate: CANDIDATE, engine: ENGINE = Engine.AUTO) -> None:
        """Before you promote a policy: what it would say to the next action of every run that is parked right now.

        For each resume and each step that waits: what the active policy says now, what the candidate would say, and
        which questions and answers of people it would void. It assumes that the same workload comes back with the same
        call. Nothing is changed: no entry, no lease.
        """
        from stepgrant_broker.commands import preflight as asked

        with said():
            report = asked.preflight(cli, candidate, engine)
        cli.out.emit(report.as_json(), lambda: report.show(cli.out))
        if report.broken:
            raise typer.Exit(1)


def _on_revisions(app: typer.Typer) -> None:
    @command(app, "list", example="stepgrant policy list")
    def list_policies(cli: Cli) -> None:
        """List the policies that this broker activated, the newest first."""
        with cli.broker() as broker:
            answer = broker.get("/v1/policies")
        rows = [
            (p["revision"], "active" if p["active"] else "", cli.out.when(p["activated_at"]))
            for p in answer["policies"]
        ]
        cli.out.emit(
            answer, lambda: cli.out.table(("revision", "", "activated"), rows, empty="no policy was activated")
        )

    @command(app, "show", example="stepgrant policy show 3 --out policy-3")
    def show(cli: Cli, revision: REVISION, out: OUT = None) -> None:
        """Show the files of a policy as they were when it was activated."""
        from stepgrant_broker.commands import deciding

        with cli.broker() as broker:
            answer = deciding.policy_text(broker, revision)
        if out is not None:
            _write(out, answer["text"])
        cli.out.emit(answer, lambda: _print_policy(cli, answer, out))


def _print_policy(cli: Cli, answer: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        cli.out.line(f"{plain.visible(answer['revision'])} is written to {plain.visible(out)}")
        return
    cli.out.line(f"# {plain.visible(answer['revision'])}", style="bold")
    for path, text in sorted(answer["text"].items()):
        cli.out.line(f"\n# {plain.visible(path)}", style="bold")
        for line in str(text).splitlines():
            cli.out.line(plain.visible(line.replace("\t", "    ")))


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the files below a folder that must be new. Raises `CommandError` for paths that leave it."""
    if folder.exists():
        raise CommandError(f"{folder} exists; name a new folder", code="configuration_error")
    for name, text in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"the policy names a file outside its folder: {name}", code="configuration_error")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
