"""Whether the agent got to the end of its run: the findings for when nothing more exact says why not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from stepgrant_broker.commands.rehearse.findings import Finding
from stepgrant_broker.commands.rehearse.performing import Rehearsal
from stepgrant_broker.commands.rehearse.scenarios import PLAIN

Found: TypeAlias = Iterator[Finding]


def hangs(one: Rehearsal, _: Rehearsal) -> Found:
    """A life that took too long."""
    late = next((life for life in one.lives if not life.in_time), None)
    if late is not None:
        yield Finding("hangs", "", _last(one, f"not after {late.seconds:.0f} s; it said last: "))


def no_run(one: Rehearsal, _: Rehearsal) -> Found:
    """A command that is no agent."""
    if not one.standing.runs and one.scenario.id == PLAIN and not _late(one):
        yield Finding("no_run", "", _last(one, f"{one.lives[-1].shown}; it said last: "))


def not_finished(one: Rehearsal, _: Rehearsal) -> Found:
    """A run that did not come to its end, for whatever other reason."""
    if not one.standing.runs or one.needs_person or _late(one) or _all_ended(one):
        return
    if one.lives[-1].code == 0:
        yield Finding("run_left_open", "", f"the run is {one.run.state.value if one.run else 'unknown'}")
    else:
        code = "not_started" if one.scenario.id == PLAIN else "not_resumed"
        yield Finding(code, "", _last(one, f"{one.lives[-1].shown}; it said last: "))


def _late(one: Rehearsal) -> bool:
    return any(not life.in_time for life in one.lives)


def _all_ended(one: Rehearsal) -> bool:
    return all(run.state.ended for run in one.standing.runs)


def _last(one: Rehearsal, before: str) -> str:
    return before + (" | ".join(one.lives[-1].last_words[-3:]) or "nothing")
