"""`stepgrant init`: a folder with a policy, an agent and a page that says what to type. Nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError

FOLDER = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make or fill.")]
SCAFFOLD: Final[Mapping[str, str]] = {
    "agent.py": "agent.py",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    "policy/stepgrant_config/data.json": "policy/data.json",
    "policy/cases/my-agent.json": "policy/my-agent.json",
}
"""Paths of a new project, and where in the package their text is."""


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(root, "init", remote=False, example="stepgrant init my-project")
    def init(cli: Cli, folder: FOLDER) -> None:
        """Make a project: a starter policy with its settings, a small agent that survives kill -9, and a README."""
        wanted = scaffold()
        there = [name for name in wanted if (folder / name).exists() or (folder / name).is_symlink()]
        if there:
            named = plain.joined(there[:5]) + (" ..." if len(there) > len(there[:5]) else "")
            said = f"{folder} has these already, and nothing is overwritten: {named}"
            raise CommandError(said, code="configuration_error")
        for name, data in wanted.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
        cli.out.emit({"folder": str(folder), "files": sorted(wanted)}, lambda: _said(cli, folder))


def scaffold() -> dict[str, bytes]:
    """Every file of a new project by its path: the starter policy, with settings and cases of the agent's own."""
    from stepgrant_broker.policy.bundle import starter_files

    source = files("stepgrant_broker.commands") / "scaffold"
    rules = {f"policy/{path}": data for path, data in starter_files().items() if not path.startswith("cases/")}
    return rules | {path: (source / name).read_bytes() for path, name in SCAFFOLD.items()}


def _said(cli: Cli, folder: Path) -> None:
    out = cli.out
    out.line(f"{plain.visible(folder)} is ready:", style="bold")
    out.facts(
        (
            ("agent.py", "a small agent; kill it whenever you like"),
            ("policy/stepgrant_config/data.json", "what it may do: edit this first"),
            ("policy/stepgrant/", "the rules behind it, with their tests"),
            ("README.md", "what to type"),
        )
    )
    out.line("Go on with:")
    out.line(f"  cd {plain.visible(folder)}")
    out.line("  stepgrant dev -- python agent.py")
