"""A story on the screen: one line an event, its time since the run was opened, a sign, and the words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant.cli import plain
from stepgrant.cli._telling import Mark

if TYPE_CHECKING:
    from rich.text import Text

    from stepgrant.cli.output import Output
    from stepgrant.cli.timeline import Block, Line, Story

WIDTH: Final = 12
SIGNS: Final = {
    Mark.RUN: ("▶", "bold cyan"),
    Mark.GOOD: ("✓", "green"),
    Mark.BAD: ("✗", "bold red"),
    Mark.DOUBT: ("?", "bold magenta"),
    Mark.PERSON: ("☺", "yellow"),
    Mark.CREDENTIAL: ("·", "blue"),
    Mark.PLAIN: (" ", ""),
}


def show(story: Story, out: Output, *, part: bool = False) -> None:
    """Print the whole story. `part`: it is of some entries of a run only, which say nothing of its state and totals."""
    from rich.text import Text

    console = out.console
    if part:
        console.print(Text(f"part of {story.run}; times count from its first entry", style="dim"), soft_wrap=True)
        _blocks(story, out)
        return
    head = Text.assemble(("run ", "dim"), (story.key or story.run, "bold"), ("  agent ", "dim"), story.agent)
    head.append(f"  {story.state}", style="bold")
    console.print(head, soft_wrap=True)
    console.print(Text(f"{story.run}, opened {plain.utc(story.opened_at)}", style="dim"), soft_wrap=True)
    _blocks(story, out)
    console.print()
    out.facts(story.totals)
    for question in story.open:
        console.print(Text(f"  ! {question}", style="bold yellow"), soft_wrap=True)


def _blocks(story: Story, out: Output) -> None:
    for block in story.blocks:
        out.console.print()
        if block.step is not None:
            out.console.print(_title(block), soft_wrap=True)
        _lines(block.lines, out)


def _title(block: Block) -> Text:
    from rich.text import Text

    return Text.assemble((f"  {block.title}", "bold"), (f"   {' · '.join(block.facts)}", "dim"))


def _lines(lines: tuple[Line, ...], out: Output) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True, min_width=WIDTH)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        sign, style = SIGNS[line.mark]
        loud = style if line.mark in {Mark.BAD, Mark.DOUBT, Mark.RUN} else ""
        cells = Text(plain.clock(line.at), style="dim"), Text(sign, style=style), Text(line.text, style=loud)
        if out.terminal:
            grid.add_row(*cells)
        else:
            out.line(f"{plain.clock(line.at):>{WIDTH}} {sign} {line.text}")
    if out.terminal:
        out.console.print(grid)
