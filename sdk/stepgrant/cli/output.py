"""Where output goes: one value as JSON for machines, or text and tables for people.

Rules:
* `--json`: exactly one JSON document on stdout, in ASCII, so that nothing in it can act on a terminal.
* People: colours and rules only where stdout is a terminal; piped, the same words in plain columns that are never cut.
* Notes and questions go to stderr, so that they never mix with a result.
* Only who sees what he answers is asked: what a question is about stands on stdout, and what was typed before it came
  does not answer it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH: Final = 10_000
"""Columns of a pipe: wide enough that rich never cuts a cell there."""


class Output:
    """One command's output. `json_mode`: machines read it."""

    def __init__(self, *, json_mode: bool = False) -> None:
        self.json_mode = json_mode
        self._console: Console | None = None

    @property
    def terminal(self) -> bool:
        """Whether a person looks at stdout directly."""
        return not self.json_mode and sys.stdout.isatty()

    @property
    def console(self) -> Console:
        """Where people read. What is printed is a `Text` or a table of them, never markup of others."""
        if self._console is None:
            from rich.console import Console

            width = None if self.terminal else PIPE_WIDTH
            self._console = Console(markup=False, highlight=False, emoji=False, width=width)
        return self._console

    def emit(self, value: object, human: Callable[[], None]) -> None:
        """Print the result: `value` as JSON, or what `human` prints."""
        if self.json_mode:
            self.document(value)
        else:
            human()

    def document(self, value: object) -> None:
        """Print one JSON document."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line of our own words; values of others in it went through `plain.visible`."""
        self.console.print(text, style=style, soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark for people, on stderr, in both modes."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """A table; `empty` is said where there are no rows. Cells are made visible here."""
        cells = [[plain.visible("" if cell is None else cell) for cell in row] for row in rows]
        if not cells:
            self.line(empty, style="dim")
        elif self.terminal:
            self._drawn(columns, cells)
        else:
            widths = [max(len(row[number]) for row in [columns, *cells]) for number in range(len(columns))]
            for row in [columns, *cells]:
                self.line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

    def _drawn(self, columns: Sequence[str], cells: list[list[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in columns:
            table.add_column(Text(name), overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        self.console.print(table)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Name and value, one pair a line; pairs whose value is None are left out. Values are made visible here."""
        from rich.text import Text

        known = [(name, plain.visible(value)) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            line = Text.assemble((f"  {name:<{width}}  ", "dim"), (value, STYLES.get(value, "")))
            self.console.print(line, soft_wrap=True)

    def when(self, ms: int | None) -> str:
        """A time: for people relative to now, in a pipe as UTC."""
        if ms is None:
            return ""
        return plain.ago(ms, now_ms()) if self.terminal else plain.utc(ms)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be taken back. Raises `CommandError` without a clear yes."""
        if yes:
            return
        if not (self.terminal and sys.stdin.isatty() and sys.stderr.isatty()):
            raise CommandError(
                "nobody who sees it all can be asked here: input, output and errors must be a terminal's, without "
                "--json; look first, then repeat with --yes"
            )
        sys.stdout.flush()
        forget_typed()
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise CommandError("nothing was changed", code="aborted")


def forget_typed() -> None:
    """Drop what the terminal holds of lines that were typed before the question was on the screen."""
    try:
        import termios
    except ImportError:  # Windows
        import msvcrt

        while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
            msvcrt.getch()  # type: ignore[attr-defined,unused-ignore]
        return
    with suppress(termios.error, OSError, ValueError):  # no terminal after all
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


STYLES: Final = {
    "open": "cyan",
    "parked": "yellow",
    "quarantined": "bold red",
    "completed": "green",
    "recorded": "green",
    "failed": "red",
    "cancelled": "red",
    "denied": "red",
    "in_doubt": "bold magenta",
    "awaiting_approval": "yellow",
    "pending": "yellow",
    "approved": "green",
    "consumed": "green",
    "issued": "cyan",
    "revoked": "dim",
}
"""States stand out by colour; the word itself always says it too."""


def now_ms() -> int:
    """This machine's clock, for relative times on the screen only."""
    return time.time_ns() // 1_000_000
