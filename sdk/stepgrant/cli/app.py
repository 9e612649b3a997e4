"""The tree of commands: ours, then what the broker adds.

Each command imports what it needs when it runs, so that `stepgrant --help` stays quick.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from stepgrant.cli import (
    cmd_approvals,
    cmd_grants,
    cmd_operators,
    cmd_quarantine,
    cmd_receipts,
    cmd_runs,
    cmd_secrets,
    cmd_steps,
    cmd_whoami,
    cmd_work,
    cmd_workloads,
)
from stepgrant.cli.command import Tree

ENTRY_POINTS: Final = "stepgrant.commands"
HELP: Final = """Runs of agents, step by step: what they did, under which permission, and who said yes.

Commands that talk to the broker take its address and your token from a client file or the environment; `stepgrant dev`
writes both. All take --json. Exit codes: 0 ok, 1 refused or a check failed, 2 usage, 3 not found, 4 not allowed for
you, 5 broker not available, 6 conflict with the state of things.
"""


def build(words: Sequence[str] = ()) -> typer.Typer:
    """A new command tree; building twice gives two. With the words of a command line: as much of it as they name."""
    if words and not words[0].startswith("-"):
        branch = _grown(words[0])
        if branch.has(words[0]):
            return branch
    return _grown(None)


def _grown(word: str | None) -> Tree:
    root = Tree(
        name="stepgrant", help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    root.word = word
    root.callback()(_root)
    for module in (
        cmd_runs,
        cmd_steps,
        cmd_approvals,
        cmd_grants,
        cmd_quarantine,
        cmd_workloads,
        cmd_operators,
        cmd_secrets,
        cmd_receipts,
        cmd_whoami,
        cmd_work,
    ):
        module.register(root)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _join(point, root)
    return root


def _join(point: importlib.metadata.EntryPoint, root: typer.Typer) -> None:
    try:
        register: Callable[[typer.Typer], None] = point.load()
    except ImportError as error:
        # The SDK's own commands must work beside a broken or half-installed extension; hiding it would puzzle people.
        sys.stderr.write(f"stepgrant: the commands of {point.value} are not available ({type(error).__name__})\n")
        return
    register(root)


def _version(wanted: bool) -> None:
    if wanted:
        from stepgrant import __version__

        sys.stdout.write(f"stepgrant {__version__}\n")
        raise typer.Exit


VERSION = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


def _root(version: VERSION = False) -> None:
    """Runs of agents, step by step."""
