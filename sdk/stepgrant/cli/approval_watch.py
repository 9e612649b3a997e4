"""`stepgrant approval watch`: questions as they come, answered from here.

Rules:
* One small read a round: the list is newest first, so it is read only down to what was seen before.
* What was typed before a question was shown does not answer it.
* A broker that does not answer is asked again, ever more slowly; a token that it does not know ends the watch.
* Each question is shown whole before it can be answered, and the answer is bound to what was shown, as in `approve`.
* Ctrl-C ends it, and that is no failure; what was not answered waits on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli import approval_view, plain
from stepgrant.cli.exits import ExitCode, exit_for
from stepgrant.cli.output import forget_typed
from stepgrant.errors import StepgrantError

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant.cli.people import People

PAUSE_MAX_S: Final = 60.0
"""The longest time between two reads of a broker that does not answer."""
AT_A_TIME: Final = 20
VERDICTS: Final = {"a": "approve", "approve": "approve", "d": "deny", "deny": "deny"}

Answer = Callable[["People", "dict[str, Any]", str], str]
"""Answers a question as it was shown with a verdict; the words that say what came of it. Raises `StepgrantError`."""


def watch(cli: Cli, run: str | None, every_s: float, answer: Answer) -> None:
    """Watch until Ctrl-C. `run`: only questions of this one. Raises what is wrong with the caller's token."""
    try:
        with cli.broker() as broker:
            _rounds(cli, broker, run, every_s, answer)
    except KeyboardInterrupt:
        return


def _rounds(cli: Cli, broker: People, run: str | None, every_s: float, answer: Answer) -> None:
    seen: set[str] = set()
    pause, began = every_s, False
    while True:
        try:
            for approval in _new(broker, run, seen):
                _tell(cli, broker, approval, answer)
                seen.add(approval)
            if not began and not cli.out.json_mode:
                cli.out.note("watching for questions; Ctrl-C ends it")
            pause, began = every_s, True
        except StepgrantError as error:
            if exit_for(error) is not ExitCode.UNAVAILABLE:
                raise
            pause = min(pause * 2, PAUSE_MAX_S)
            cli.out.note(f"stepgrant: {plain.visible(error)}; asked again in {pause:g} s")
        time.sleep(pause)


def _new(broker: People, run: str | None, seen: set[str]) -> Iterator[str]:
    """The questions that nobody was told of yet, the oldest first.

    A question is as old as its step, and may come after younger ones: so it is read on for a page of known ones.
    """
    found: list[str] = []
    known = 0
    for one in broker.pages("/v1/approvals", "approvals", status="pending", run=run, limit=AT_A_TIME):
        if one["id"] not in seen:
            found.append(one["id"])
            continue
        known += 1
        if known == AT_A_TIME:
            break
    yield from reversed(found)


def _tell(cli: Cli, broker: People, approval: str, answer: Answer) -> None:
    from stepgrant.cli.people import segment

    asked = broker.get(f"/v1/approvals/{segment(approval)}")
    if cli.out.json_mode:
        sys.stdout.write(json.dumps(asked, ensure_ascii=True) + "\n")
        sys.stdout.flush()
        return
    approval_view.show(cli.out, asked, broker)
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        cli.out.line(f"answer it: stepgrant approval approve {plain.visible(approval)}, or deny")
        sys.stdout.flush()
        return
    verdict = _asked(approval)
    if verdict is None:
        cli.out.line("not answered; it waits")
        return
    try:
        cli.out.line(answer(broker, asked, verdict))
    except StepgrantError as error:
        if exit_for(error) is ExitCode.UNAVAILABLE:
            raise
        # Somebody else was quicker, or it is for others: the next question is still worth an answer.
        cli.out.note(f"stepgrant: {plain.visible(error)}")


def _asked(approval: str) -> str | None:
    sys.stdout.flush()
    forget_typed()
    sys.stderr.write(f"{plain.visible(approval)}: [a]pprove exactly this, [d]eny, or leave it (Enter)? ")
    sys.stderr.flush()
    return VERDICTS.get(sys.stdin.readline().strip().lower())
