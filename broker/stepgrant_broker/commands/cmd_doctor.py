"""`stepgrant doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.wiring.doctor import Found

WORDS: Final = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "unseen": "?"}
STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "unseen": "dim"}


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(root, "doctor", remote=False, example="stepgrant doctor")
    def doctor(cli: Cli) -> None:
        """Look at this installation: settings, keys, database, policy, OPA, Vault, identities, credentials left alive.

        Run it on the broker's host, as its user and with its environment. It changes nothing. Exit code 1 if anything
        is wrong; warnings alone leave it 0.
        """
        with said():
            findings = finished(_all())
        counts = Counter(found.state.value for found in findings)
        value = {"ok": not counts["fail"], "findings": [_plain(one) for one in findings], "counts": dict(counts)}
        cli.out.emit(value, lambda: _print(cli, findings, counts))
        if counts["fail"]:
            raise typer.Exit(1)


async def _all() -> list[Found]:
    from stepgrant_broker.config import spelled
    from stepgrant_broker.wiring.doctor import examine

    return [replace(found, what=spelled(found.what), fix=spelled(found.fix)) async for found in examine()]


def _plain(found: Found) -> dict[str, Any]:
    return {
        "area": found.area,
        "name": found.name,
        "state": found.state.value,
        "what": found.what,
        "fix": found.fix or None,
    }


def _print(cli: Cli, findings: list[Found], counts: Counter[str]) -> None:
    width = max(len(f"{one.area} {one.name}") for one in findings)
    for found in findings:
        state = found.state.value
        place = f"{found.area} {found.name}"
        cli.out.line(f"{WORDS[state]:<4} {plain.visible(place):<{width}}  {plain.visible(found.what)}", STYLES[state])
        if found.fix and state != "ok":
            cli.out.line(f"     {'':<{width}}  -> {plain.visible(found.fix)}")
    told = [f"{plain.count(counts[state], noun)}" for state, noun in (("fail", "failure"), ("warn", "warning"))]
    cli.out.line(f"{plain.count(len(findings), 'look')}, {', '.join(told)}")
