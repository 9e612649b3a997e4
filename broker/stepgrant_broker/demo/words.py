"""How the demo is told: one line a check, with a sign, the claim, and the evidence that was looked at.

Rules: what comes out of processes is shown made visible, never as terminal control; with `--json` nothing but one
document goes to stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepgrant.cli import plain
from stepgrant_broker.demo.checks import Check, Checks

if TYPE_CHECKING:
    from rich.console import Console

    from stepgrant.cli.timeline import Story

MAX_EVIDENCE = 160


class Words:
    """stdout of the demo."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._chapter = ""
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """For people: colours on a terminal, the same words without them elsewhere."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
        return self._console

    def tell(self, made: Check) -> None:
        """One check; its chapter's title goes before the first."""
        if self._as_json:
            return
        from rich.text import Text

        if made.chapter != self._chapter:
            self._chapter = made.chapter
            self.console.print(Text(f"\n{made.chapter}", style="bold"))
        sign = Text("  ✓ ", style="green") if made.holds else Text("  ✗ ", style="bold red")
        line = Text.assemble(sign, plain.visible(made.claim))
        evidence = plain.visible(made.evidence)
        if made.holds and len(evidence) > MAX_EVIDENCE:
            evidence = evidence[:MAX_EVIDENCE] + "…"
        if evidence:
            fits = len(line.plain) + len(evidence) + 2 <= self.console.width
            line.append(f"  {evidence}" if fits else f"\n      {evidence}", style="dim")
        self.console.print(line)

    def show(self, story: Story) -> None:
        """The timeline, as `stepgrant run show` shows it."""
        if not self._as_json:
            from stepgrant.cli import timeline_view
            from stepgrant.cli.output import Output

            self.console.print()
            timeline_view.show(story, Output())

    def end(self, checks: Checks, summary: dict[str, Any], more: Sequence[str]) -> None:
        """The last word."""
        if self._as_json:
            sys.stdout.write(json.dumps(summary, indent=2) + "\n")
            return
        from rich.text import Text

        held, made = len(checks.made) - len(checks.failed), len(checks.made)
        style = "bold green" if checks.all_hold else "bold red"
        self.console.print(Text(f"\n{held} of {made} checks held, {summary['seconds']:.1f} s", style=style))
        for line in more:
            self.console.print(Text(plain.visible(line), style="dim"))
