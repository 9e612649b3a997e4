"""`stepgrant ledger export`: this host's log as lines for systems that collect events, at least once each."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.ledger.exporting import Line, Sink

EVERY_S: Final = 1.0
"""How often a following export looks for more."""


class Format(StrEnum):
    """What the lines are."""

    OCSF = "ocsf"


def register(root: typer.Typer) -> None:
    """Add the command to the group `ledger`."""
    app = group(root, "ledger", "The record that everything stands in.")

    @command(
        app,
        "export",
        remote=False,
        example="stepgrant ledger export --out events.jsonl --state events.state --follow",
    )
    def export(
        cli: Cli,
        format_: Annotated[Format, typer.Option("--format", help="OCSF 1.8.0, one JSON object a line.")] = Format.OCSF,
        out: Annotated[Path | None, typer.Option(help="Append here, instead of printing.")] = None,
        state: Annotated[
            Path | None, typer.Option(help="Keeps the position up to which all lines are on disk; goes on from there.")
        ] = None,
        after: Annotated[
            int | None, typer.Option(help="Begin behind this position (`metadata.sequence`), as long as no state says.")
        ] = None,
        *,
        follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until stopped.")] = False,
    ) -> None:
        """Write the log's entries as events, in its order, each at least once.

        A position is a place in the log: it never changes, and none is left out. What a crash cut short is written
        again by the next export with the same --state. Only what entries carry in clear is in the events.
        """
        if cli.out.json_mode and out is None:
            raise CommandError("--json prints one document, so the lines need --out")
        with said(), _refused():
            count, position = finished(_export(cli, out, state, after, follow=follow))
        value = {"format": format_.value, "exported": count, "position": position}
        if out is not None:
            where = plain.visible(out)
            events = plain.count(count, "event")
            cli.out.emit(value, lambda: cli.out.line(f"{events} written to {where}; position {position}"))


@contextmanager
def _refused() -> Iterator[None]:
    from stepgrant_broker.ledger.exporting import ExportRefused

    try:
        yield
    except ExportRefused as refused:
        raise CommandError(str(refused), code="export_refused") from None
    except BrokenPipeError:
        raise CommandError("whoever read the lines has gone away", code="export_refused") from None
    except OSError as error:
        raise CommandError(f"the lines cannot be written: {error.strerror}", code="export_refused") from None


async def _export(
    cli: Cli, out: Path | None, state_file: Path | None, after: int | None, *, follow: bool
) -> tuple[int, int]:
    """How many lines were written, and the last position."""
    from stepgrant import __version__
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.ledger.exporting import BEFORE_ALL, State, export
    from stepgrant_broker.wiring import opened

    settings, stop = load_settings(), _stopped()
    async with opened(settings) as broker:
        origin = await broker.store.log_origin(settings.proposed_origin)
        state = None if state_file is None else State(state_file, origin)
        kept = None if state is None else state.read()
        start = kept if kept is not None else BEFORE_ALL if after is None else after
        position, line = start, _line(origin, __version__)
        tell = _telling(cli, out)

        def go_on(position: int) -> bool:
            tell(position)
            return not stop.is_set()

        with _sink(out) as sink:
            while True:
                position = await export(broker.store, line, sink, position, state=state, go_on=go_on)
                if not follow or await _waited(stop):
                    return position - start, position


def _line(origin: str, product: str) -> Line:
    from functools import partial

    from stepgrant_broker.ledger.ocsf import event_of

    return partial(event_of, origin=origin, product=product)


@contextmanager
def _sink(out: Path | None) -> Iterator[Sink]:
    from stepgrant_broker.ledger.exporting import Sink

    if out is None:
        yield Sink(sys.stdout.buffer, durable=False)
    else:
        with Sink.at(out) as sink:
            yield sink


def _telling(cli: Cli, out: Path | None) -> Callable[[int], None]:
    """Progress on a terminal, where the lines do not go there themselves."""
    show = out is not None and cli.out.terminal and sys.stderr.isatty()

    def tell(position: int) -> None:
        if show:
            sys.stderr.write(f"\rposition {position} ")
            sys.stderr.flush()

    return tell


def _stopped() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C: a batch under way is finished and noted."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _waited(stop: asyncio.Event) -> bool:
    """Wait for the next look; whether to stop instead."""
    try:
        await asyncio.wait_for(stop.wait(), EVERY_S)
    except TimeoutError:
        return False
    return True
