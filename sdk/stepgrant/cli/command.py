"""How a command is declared: its help with an example, and the options that all commands share.

`@command(app, "list", example="...")` gives the function a `Cli` as its first argument and adds `--json`; with
`remote=True` (the default) also `--url` and `--client`. The function declares only what is its own.

To read the signatures of all commands takes longer than most commands do, so a `Tree` may be grown for one word only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

from stepgrant.cli.output import Output

if TYPE_CHECKING:
    from stepgrant.cli.client_file import Client
    from stepgrant.cli.people import People

F = TypeVar("F", bound=Callable[..., Any])

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines instead.")]
URL = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The broker. Default: the client file's, STEPGRANT_URL, or the local one."
    ),
]
CLIENT = Annotated[
    Path | None,
    typer.Option(
        "--client", metavar="FILE", help="Client file with address and token, mode 0600 (or set STEPGRANT_TOKEN)."
    ),
]
_SHARED = {"json_mode": JSON}
_REMOTE = {"url": URL, "client_file": CLIENT}
_DEFAULTS: dict[str, Any] = {"json_mode": False, "url": None, "client_file": None}


class Tree(typer.Typer):
    """Commands and groups. `word`: the only one that is wanted; what is left out is never looked at."""

    word: str | None = None

    def wants(self, name: str) -> bool:
        """Whether a command or group of this name is to be there."""
        return self.word is None or self.word == name

    def has(self, name: str) -> bool:
        """Whether one is there."""
        commands = [command.name for command in self.registered_commands]
        return name in (*commands, *[group.name for group in self.registered_groups])


_NOTHING: Final = ""
"""A word that no command has."""


class Cli:
    """What a command works with: its output, and the broker once it asks for it."""

    def __init__(self, *, json_mode: bool = False, url: str | None = None, client_file: Path | None = None) -> None:
        self.out = Output(json_mode=json_mode)
        self._url = url
        self._client_file = client_file

    def client(self) -> Client:
        """Address and token. Raises `CommandError` (no_token, configuration_error)."""
        from stepgrant.cli import client_file

        return client_file.find(url=self._url, file=self._client_file)

    @contextmanager
    def broker(self) -> Iterator[People]:
        """The broker over HTTP, as the person whose token it is."""
        from stepgrant.cli.people import People

        with People(self.client()) as people:
            yield people


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str,
    remote: bool = True,
    **settings: Any,  # noqa: ANN401 - typer's own
) -> Callable[[F], F]:
    """Register a function as command `name` of `app`, where it is wanted. `example` is one or more whole lines."""
    if isinstance(app, Tree) and not app.wants(name):
        return lambda function: function
    shared = {**(_REMOTE if remote else {}), **_SHARED}

    def register(function: F) -> F:
        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def run(*positional: Any, **named: Any) -> None:  # noqa: ANN401 - whatever the function declares
            cli = Cli(**{key: named.pop(key) for key in shared})
            function(cli, *positional, **named)

        kinds = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=annotation)
            for key, annotation in shared.items()
        ]
        del run.__dict__["__wrapped__"]  # else the hidden first argument would be found again
        vars(run)["__signature__"] = inspect.Signature([*kinds, *added])
        run.__annotations__ = {p.name: p.annotation for p in [*kinds, *added]} | {"return": None}
        lines = "\n".join(f"  {line}" for line in example.splitlines())
        app.command(name, epilog=f"\b\nExample:\n{lines}", **settings)(run)
        return function

    return register


def group(root: typer.Typer, name: str, help_text: str) -> typer.Typer:
    """The group `name` of `root`, made if it is not there yet. The broker's commands join groups of the SDK with it."""
    for known in root.registered_groups:
        if known.name == name and known.typer_instance is not None:
            return known.typer_instance
    made = Tree(no_args_is_help=True, rich_markup_mode=None, help=help_text)
    if isinstance(root, Tree) and not root.wants(name):
        made.word = _NOTHING
    else:
        root.add_typer(made, name=name, help=help_text)
    return made
